"""What of a role makes up a run's identity."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from insightv import Question, ReasoningPath, Score, Scorer
from insightv.config import ScorerTable
from insightv.identity import role_identity
from insightv.plugins import Source
from insightv.wiring import Part


class OneScorer(Scorer):
    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        return [Score(scorer="one", value=1.0) for _ in paths]


@pytest.mark.parametrize(("distribution", "counts"), [("insightv", False), ("zoo-backend", True)])
def test_how_a_model_is_run_is_free_for_our_backends_alone(distribution: str, counts: bool) -> None:
    """A plugin's `batch` may be what its results depend on."""
    part = Part[Scorer](OneScorer(), None, backend=Source("backends", distribution, "1"))
    table = ScorerTable.model_validate(
        {"use": "one", "model": "zoo/x", "backend": {"batch": 8, "threads": 2, "proxy": "none"}}
    )
    assert ("backend" in role_identity(part, table)) is counts
