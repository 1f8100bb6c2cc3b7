"""Plugins in folders of their own: installed by pip, or written down as an installed distribution looks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

INSIGHTV = Path(sys.executable).with_name("insightv")


def pip_install(source: Path, site: Path) -> None:
    """What `pip install` does, into a folder and without a network."""
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(site), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def write_distribution(site: Path, name: str, module: str, *, version: str = "3.1", plugin: str | None = None) -> None:
    """An installed distribution `zoo-NAME` with the plugin NAME, whose module holds `module`."""
    site.mkdir(exist_ok=True)
    (site / f"zoo_{name}.py").write_text(module, encoding="utf-8")
    info = site / f"zoo_{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: zoo-{name}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[insightv]\n{plugin or name} = zoo_{name}\n", encoding="utf-8")


def insightv(
    *arguments: str | Path, site: Path | None, cwd: Path, plugins: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The command, with the plugins of `site`; `plugins` is INSIGHTV_PLUGINS."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "INSIGHTV_PLUGINS")}
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    if plugins is not None:
        environment["INSIGHTV_PLUGINS"] = plugins
    command = [str(INSIGHTV), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=100)


def write_questions(folder: Path) -> Path:
    """Two questions about a picture each; `yes` is right for the first and wrong for the second."""
    rows = []
    for i, (colour, answer) in enumerate((("red", "yes"), ("blue", "no"))):
        Image.new("RGB", (32, 32), colour).save(folder / f"{colour}.png")
        rows.append({"id": f"q{i}", "question": "Is it red?", "images": [f"{colour}.png"], "answer": answer})
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
