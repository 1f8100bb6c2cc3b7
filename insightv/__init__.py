"""Long, checked visual reasoning data, and the two-agent reasoner trained on it (Insight-V, arXiv 2411.14432).

    from insightv import Pipeline, Reasoner

    pipeline = Pipeline.from_config("insightv.toml", run="runs/charts")
    pipeline.build("questions.jsonl")
    answer = Reasoner.load("runs/charts").answer("chart.png", "Which bar is tallest?")

Public names are imported on first use, so that `import insightv` loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

    from insightv.errors import (
        BudgetSpent,
        ConfigError,
        EndpointParked,
        InputError,
        InsightvError,
        Interrupted,
        KeyRefused,
        MissingExtra,
        ModelError,
        ModelUnknown,
        PluginError,
        QuotaExhausted,
        RequestsRefused,
        RunChanged,
        RunHeld,
        StopRun,
        StorageFull,
    )
    from insightv.interfaces import ChatModel, Generator, PreferenceTrainer, ReasoningAgent, Scorer, SummaryAgent
    from insightv.pipeline import Pipeline
    from insightv.plugins import hookimpl
    from insightv.reasoner.reasoner import Reasoner
    from insightv.records import (
        Answer,
        Band,
        Completion,
        Message,
        PreferencePair,
        Question,
        ReasoningPath,
        Sampling,
        Score,
        Step,
        Usage,
    )
    from insightv.runs.reader import load_run

__all__ = [
    "Answer",
    "Band",
    "BudgetSpent",
    "ChatModel",
    "Completion",
    "ConfigError",
    "EndpointParked",
    "Generator",
    "InputError",
    "InsightvError",
    "Interrupted",
    "KeyRefused",
    "Message",
    "MissingExtra",
    "ModelError",
    "ModelUnknown",
    "Pipeline",
    "PluginError",
    "PreferencePair",
    "PreferenceTrainer",
    "Question",
    "QuotaExhausted",
    "Reasoner",
    "ReasoningAgent",
    "ReasoningPath",
    "RequestsRefused",
    "RunChanged",
    "RunHeld",
    "Sampling",
    "Score",
    "Scorer",
    "Step",
    "StopRun",
    "StorageFull",
    "SummaryAgent",
    "Usage",
    "hookimpl",
    "load_run",
]

_HOME = {
    "errors": (
        "BudgetSpent ConfigError EndpointParked InputError InsightvError Interrupted KeyRefused MissingExtra "
        "ModelError ModelUnknown PluginError QuotaExhausted RequestsRefused RunChanged RunHeld StopRun StorageFull"
    ),
    "interfaces": "ChatModel Generator PreferenceTrainer ReasoningAgent Scorer SummaryAgent",
    "pipeline": "Pipeline",
    "plugins": "hookimpl",
    "reasoner.reasoner": "Reasoner",
    "records": ("Answer Band Completion Message PreferencePair Question ReasoningPath Sampling Score Step Usage"),
    "runs.reader": "load_run",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("insightv.version").release()
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'insightv' has no attribute {name!r}")
    return getattr(import_module(f"insightv.{module}"), name)


def __dir__() -> list[str]:
    return __all__
