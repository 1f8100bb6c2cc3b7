"""The command line's own errors: what is mistyped ends with 2, with the cure on stderr and nothing on stdout."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

import insightv as package
from insightv.cli.main import app
from tests.world import insightv

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("buld",), "No such command"),
        (("build", "--rnu", "x"), "No such option"),
        (("build", "q.jsonl", "--pilot", "0"), "--pilot"),
        (("export",), "Missing option"),
        (("status", "--run"), "requires an argument"),
        (("answer", "a.png"), "Missing argument"),
        (("evaluate", "--seed", "one"), "--seed"),
    ],
)
def test_what_is_mistyped_ends_with_2(args: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = insightv(*args, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert not done.stdout
    assert "Traceback" not in done.stderr


def test_help_holds_nothing_that_would_be_taken_for_markup() -> None:
    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]  # a group
    texts = [text for each in commands for text in (each.help, *(getattr(one, "help", "") for one in each.params))]
    assert len(texts) > 60
    assert not [text for text in texts if re.search(r"\[[a-z/]", text or "")]


def test_the_version_is_told(tmp_path: Path) -> None:
    done = insightv("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"insightv {version('insightv')}\n")
    assert package.__version__ == version("insightv")


def test_the_version_of_a_source_tree_that_is_not_installed_is_unknown() -> None:
    code = f"import sys; sys.path.append({str(ROOT)!r}); import insightv; print(insightv.__version__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "unknown\n"


def test_help_is_no_error(tmp_path: Path) -> None:
    done = insightv("build", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--bad-rows" in done.stdout
