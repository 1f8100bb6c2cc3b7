"""The public names: all there, all lazily imported, none that nobody asked for."""

from __future__ import annotations

import ast
import inspect

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
