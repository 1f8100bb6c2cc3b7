"""Conformance checks for plugin authors, and the samples and the fake model that they run on. For tests only.

    from insightv.testing import ScriptedModel, check_backend, check_scorer

    def test_brevity():
        check_scorer(Brevity)

    def test_judge():
        check_scorer(Judge, model=ScriptedModel('{"score": 70}'))

    def test_backend():
        check_backend(lambda: MyBackend("some-model"), deterministic=True)

Each check is a plain function that runs its own event loop and raises `ConformanceError`, an AssertionError, at the
first thing that is wrong: what, the value, the cure. What it cannot see by itself stands in its arguments.
"""

from insightv.testing.backends import check_backend
from insightv.testing.roles import check_generator, check_reasoning_agent, check_summary_agent
from insightv.testing.running import ConformanceError
from insightv.testing.samples import Asked, ScriptedModel, sample_paths, sample_picture, sample_questions
from insightv.testing.scorers import check_scorer

__all__ = [
    "Asked",
    "ConformanceError",
    "ScriptedModel",
    "check_backend",
    "check_generator",
    "check_reasoning_agent",
    "check_scorer",
    "check_summary_agent",
    "sample_paths",
    "sample_picture",
    "sample_questions",
]
