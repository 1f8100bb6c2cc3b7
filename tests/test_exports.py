"""The public names: all there, all lazily imported, none that nobody asked for."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import insightv
from insightv import errors

CONTRACT = {
    "Pipeline",
    "Reasoner",
    "Question",
    "Step",
    "ReasoningPath",
    "Score",
    "Band",
    "PreferencePair",
    "Answer",
    "Message",
    "Sampling",
    "Completion",
    "Usage",
    "ChatModel",
    "Generator",
    "Scorer",
    "ReasoningAgent",
    "SummaryAgent",
    "PreferenceTrainer",
    "hookimpl",
    "load_run",
    "AskOptions",
    "Picture",
    "Schema",
    "Settings",
    "AssessedPath",
    "AssessedQuestion",
    "Evaluation",
    "read_questions",
    "open_picture",
    "open_question",
    "seed_of",
    "to_text",
    "AnswerDone",
    "AnswerText",
    "Event",
    "PathDone",
    "PathText",
    "StepEvent",
    "StepStarted",
    "StepText",
    "RunStatus",
    "TrainingResult",
}


def typed_names() -> dict[str, str]:
    """The names that type checkers see, and the module of each."""
    tree = ast.parse(inspect.getsource(insightv))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_the_public_names_are_those_of_the_contract_and_the_errors() -> None:
    all_errors = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.InsightvError)
    }
    assert set(insightv.__all__) == CONTRACT | all_errors
    assert insightv.__all__ == sorted(insightv.__all__)


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    assert set(typed_names()) == set(insightv.__all__)
    for name, module in typed_names().items():
        value = getattr(insightv, name)
        assert value is getattr(__import__(module, fromlist=[name]), name)


def test_a_star_import_and_dir_give_all_names() -> None:
    names: dict[str, object] = {}
    exec("from insightv import *", names)
    assert set(insightv.__all__) <= set(names)
    assert set(insightv.__all__) <= set(dir(insightv))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(insightv, "Pipelin")


PUBLIC_NAMES = {
    "records": (
        "Action Answer AskOptions Band Completion Count Finish LARGEST_COUNT Message PathStatus Picture "
        "PreferencePair Question RESERVED ReasoningPath Record Sampling Schema Score Step Usage seed_of"
    ),
    "interfaces": "ChatModel Generator PreferenceTrainer ReasoningAgent Scorer SummaryAgent",
    "errors": (
        "BudgetSpent ConfigError EndpointParked InputError InsightvError Interrupted KeyRefused MissingExtra "
        "ModelError ModelUnknown PluginError QuotaExhausted RequestsRefused RunChanged RunHeld StopRun StorageFull "
        "TooManyOpenFiles"
    ),
    "events": "AnswerDone AnswerText Event PathDone PathText StepEvent StepStarted StepText",
    "plugins": "Entry Factory Failure Hooks Kind PluginSource Register Registry hookimpl",
    "testing": (
        "Asked ConformanceError ScriptedModel check_backend check_generator check_reasoning_agent check_scorer "
        "check_summary_agent sample_paths sample_picture sample_questions"
    ),
    "server.app": "make_app",
}
PUBLIC_MODULES = tuple(PUBLIC_NAMES)
ROOT = Path(__file__).parents[1]


def test_the_public_modules_are_named_where_the_names_are() -> None:
    assert insightv.__doc__ is not None
    named = insightv.__doc__[insightv.__doc__.index("What is public") :]
    for module in PUBLIC_MODULES:
        assert module in named
        importlib.import_module(f"insightv.{module}")


def names_of(module: ModuleType) -> set[str]:
    """Its `__all__`, or where it has none what it defines itself without an underscore."""
    if listed := getattr(module, "__all__", None):
        return set(listed)
    defined: set[str] = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined.update(target.id for target in targets if isinstance(target, ast.Name))
    return {name for name in defined if not name.startswith("_")}


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_a_public_module_has_the_names_that_are_listed(name: str) -> None:
    module = importlib.import_module(f"insightv.{name}")
    assert names_of(module) == set(PUBLIC_NAMES[name].split())
    assert all(hasattr(module, each) for each in names_of(module))


def test_the_readme_says_what_is_public() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    said = readme[readme.index("## What is public") :].split("\n## ")[0]
    assert set(re.findall(r"`(?:insightv)?\.([a-z.]+)`", said)) >= {*PUBLIC_MODULES}


def test_the_wheel_says_that_it_is_typed(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        assert "insightv/py.typed" in files.namelist()


def imported_in(text: str) -> set[tuple[str, str]]:
    """What a Python text, or the lines of one in a document, takes from insightv: module and name."""
    found = re.findall(r"(?m)^\s*from (insightv(?:\.\w+)*) import ([\w, ]+)", text)
    return {(module, name.strip()) for module, names in found for name in names.split(",")}


def test_what_is_shown_uses_public_places_only() -> None:
    allowed = {"insightv", *(f"insightv.{module}" for module in PUBLIC_MODULES)}
    shown = [file for suffix in ("md", "py") for file in sorted((ROOT / "examples").rglob(f"*.{suffix}"))]
    shown += [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for file in shown:
        for module, name in imported_in(file.read_text(encoding="utf-8")):
            assert module in allowed, f"{file.name}: from {module} import {name}"
            assert hasattr(importlib.import_module(module), name), f"{file.name}: {module} has no {name}"


MISTYPED = """
from pathlib import Path
from insightv import Pipeline, Question, Reasoner

def ask(reasoner: Reasoner, question: Question) -> None:
    reasoner.answer([Path("a.png"), "b.png", b"bytes"], "Which?", paths=2, options={"deadline_s": 60})
    reasoner.answer("a.png", question, seeds=1)
    for event in reasoner.stream(["a.png"], "Which?", show="all"):
        print(event)
    reasoner.stream("a.png", "Which?", pahts=2)
    reasoner.answer_many([question], concurency=2)
    Reasoner.of("openai/x", base_url="http://localhost:8000/v1", deadline_s=60)
    Reasoner.load("runs/charts", threads=1)

def build(pipeline: Pipeline) -> None:
    pipeline.build("questions.jsonl", retry_faild=True)
"""


def test_a_mistyped_option_is_found_by_a_type_checker(tmp_path: Path) -> None:
    (tmp_path / "mistyped.py").write_text(MISTYPED, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(ROOT / ".mypy_cache")]
    done = subprocess.run(
        [*command, str(tmp_path / "mistyped.py")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    errors_found = [line for line in done.stdout.splitlines() if "mistyped.py" in line and ": error:" in line]
    assert [int(line.split(":")[1]) for line in errors_found] == [7, 10, 11, 16], done.stdout + done.stderr
    assert all("Unexpected keyword argument" in line for line in errors_found)
