"""What stdout and stderr cannot take: letters, anything at all, or nothing more."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.world import ENVIRONMENT, command

FULL = Path("/dev/full")
CONFIG = command(
    "config", "--set", 'generator.model="openai/模型 é"', "--set", 'generator.base_url="http://localhost/v1"'
)


def test_letters_that_an_encoding_lacks_are_replaced() -> None:
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(CONFIG, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert 'model = "openai/?? ?"' in done.stdout


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("args", [CONFIG, command("--version"), command("--help")], ids=["command", "version", "help"])
def test_a_full_disk_behind_stdout_is_said(args: list[str]) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(args, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("error: stdout cannot be written: No space left on device; make room")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("how", ["{} | true", "{} >&-"], ids=["a pipe that closed", "closed"])
def test_where_nobody_reads_a_command_ends_quietly(how: str) -> None:
    script = "set -o pipefail; " + how.format('"$@"')
    done = subprocess.run(
        ["bash", "-c", script, "bash", *CONFIG], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 141
    assert done.stdout == done.stderr == ""


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("how", ["2>/dev/full", "2>&-", "2> >(true)"])
def test_what_stderr_does_not_take_is_lost_and_the_exit_code_stays(how: str) -> None:
    args = command("status", "--run", "/nowhere")
    done = subprocess.run(["bash", "-c", f'"$@" {how}', "bash", *args], capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    assert not done.stdout
