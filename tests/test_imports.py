"""The import law: what is loaded when, and who may import whom."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import house

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch", "transformers", "trl", "peft", "vllm", "datasets", "accelerate", "openai", "PIL", "ray",
}  # fmt: skip
TRAINING = {"trl", "peft", "accelerate"}
LIST = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`."""
    done = subprocess.run([sys.executable, "-c", f"{code}\n{LIST}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import insightv",
        "from insightv import ChatModel, Scorer, Score, Question, hookimpl",
        "from insightv.config.plugin_loading import load_registry; load_registry()",
        "import insightv.testing",
        "import insightv.config.settings, insightv.errors, insightv.agents.replies.transcript",
    ],
)
def test_light_imports_load_nothing_heavy(code: str) -> None:
    loaded = loaded_by(code)
    assert "insightv" in loaded
    assert not loaded & HEAVY


def test_the_pipeline_and_the_reasoner_load_no_framework() -> None:
    assert not loaded_by("from insightv import Pipeline, Reasoner") & (HEAVY - {"PIL"})


def test_the_command_starts_without_a_framework() -> None:
    assert not loaded_by("import insightv.cli.main") & (HEAVY - {"PIL"})


def test_importing_insightv_costs_next_to_nothing() -> None:
    """Processor time, since a busy machine stretches any clock on the wall; the least of three tries."""
    code = "import time; began = time.process_time(); import insightv; print(time.process_time() - began)"
    tries = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(done.stdout) for done in tries) < 0.15


def test_looking_for_heavy_modules_would_find_them() -> None:
    assert "PIL" in loaded_by("import PIL.Image")


def test_the_import_law_holds() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 broken" in done.stdout


def test_training_libraries_are_imported_only_where_training_is_done() -> None:
    found = []
    for file in (ROOT / "insightv").rglob("*.py"):
        if file.is_relative_to(ROOT / "insightv" / "train"):
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            words = line.split()
            if words[:1] in (["import"], ["from"]) and words[1].partition(".")[0].rstrip(",") in TRAINING:
                found.append(f"{file.name}:{number}: {line.strip()}")
    assert not found


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_what_benchmarks_import_is_there(script: Path) -> None:
    taken = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in ("insightv", "tests")
        for alias in node.names
    ]
    for module, name in taken:
        found = importlib.import_module(module)
        inside = [each.name for each in pkgutil.iter_modules(getattr(found, "__path__", ()))]
        assert hasattr(found, name) or name in inside, f"{module} has no {name}"


@pytest.fixture(scope="module")
def files() -> dict[str, set[str]]:
    return house.imports()


def test_files_form_no_circle(files: dict[str, set[str]]) -> None:
    assert house.circle_among(files) == []


def test_rooms_form_no_circle(files: dict[str, set[str]]) -> None:
    assert house.circle_among(house.between_rooms(files)) == []


def test_a_circle_would_be_found() -> None:
    assert set(house.circle_among({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_the_root_stays_small() -> None:
    assert len(list((ROOT / "insightv").glob("*.py"))) <= 13  # __init__ among them
