"""A small random model and small data sets, built once for the training tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from insightv.inputs.images import ImageStore
from insightv.records import PreferencePair
from insightv.train.data.card import Origin
from insightv.train.data.export import export_set
from insightv.train.data.pair_rows import to_json
from insightv.train.data.pairs import PairRule, select_pairs
from insightv.train.data.sets import ReasonSet
from tests.backends.tiny_vlm import build

from .world import mixed, prompt, run_of


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory."""
    return build(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="session")
def reason(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reason set of 12 rows."""
    folder = tmp_path_factory.mktemp("data") / "reason"
    export_set(ReasonSet(prompt=prompt), run_of(12), folder, Origin())
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[PreferencePair]:
    """Twelve pairs that carry their prompts."""
    store = ImageStore(tmp_path_factory.mktemp("store") / "images")
    rule = PairRule(per_question=1, length_slack=None)
    return select_pairs(run_of(12, mixed), rule, lambda asked: to_json(prompt(asked), store)).pairs
