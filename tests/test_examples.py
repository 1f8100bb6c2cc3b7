"""The examples, as a reader would type them: copied into an empty folder, installed with pip, used by the command."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.installing import insightv, pip_install, write_questions

EXAMPLES = Path(__file__).parents[1] / "examples"
SCORER = EXAMPLES / "custom_scorer"
CONFIG = """
[generator]
model = "echo"
paths = 2
[[scorers]]
use = "brevity"
words = 10
"""
CHECK = "from insightv.testing import check_scorer; from insightv_brevity import Brevity; check_scorer(Brevity)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scorer typed into an empty folder and installed; `echo` of the test package is the model."""
    typed = tmp_path_factory.mktemp("typed")
    for file in ("insightv_brevity.py", "pyproject.toml"):
        (typed / file).write_text((SCORER / file).read_text(encoding="utf-8"), encoding="utf-8")
    site = tmp_path_factory.mktemp("site")
    pip_install(typed, site)
    pip_install(Path(__file__).parent / "plugin_package", site)
    return site


def test_the_custom_scorer_is_used_by_a_build(site: Path, tmp_path: Path) -> None:
    write_questions(tmp_path)
    (tmp_path / "insightv.toml").write_text(CONFIG, encoding="utf-8")
    done = insightv("build", "questions.jsonl", "--run", "run", "--json", "--no-datasets", site=site, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bands"] == {"high": 0, "mid": 4, "low": 0, "wrong": 0, "unscored": 0}
    out = tmp_path / "paths.jsonl"
    insightv("export", "--run", "run", "--what", "paths", "--out", out, site=site, cwd=tmp_path)
    for line in out.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        words = sum(len(step["content"].split()) for step in row["steps"])
        (score,) = row["scores"]
        assert (score["scorer"], score["reason"]) == ("brevity", f"{words} words")
        assert score["value"] == pytest.approx(100 * 10 / words)


def test_the_custom_scorer_passes_the_checks_for_authors(site: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK], env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_custom_scorer_stays_as_small_as_it_is_said_to_be() -> None:
    lines = (SCORER / "insightv_brevity.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 25
    project = tomllib.loads((SCORER / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"] == {"insightv": {"brevity": "insightv_brevity"}}


def test_every_example_is_named_in_the_readme() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for folder in (path for path in EXAMPLES.iterdir() if path.is_dir()):
        assert f"`{folder.name}/`" in readme
