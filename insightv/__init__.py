"""Long, checked visual reasoning data, and the two-agent reasoner trained on it (Insight-V, arXiv 2411.14432).

    from insightv import Pipeline, Reasoner

    pipeline = Pipeline.from_config("insightv.toml", run="runs/charts")
    pipeline.build("questions.jsonl")
    answer = Reasoner.load("runs/charts").answer("chart.png", "Which bar is tallest?")

What is public: the names below, and the modules `insightv.records`, `.interfaces`, `.errors`, `.events`, `.plugins`,
`.testing` and `.server.app`. Everything else may move between releases. Public names are imported on first use, so that
`import insightv` loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

    from insightv.agents.replies.transcript import to_text
    from insightv.assess.bands import AssessedPath, AssessedQuestion
    from insightv.config.settings import Settings
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
        TooManyOpenFiles,
    )
    from insightv.evaluate.evaluation import Evaluation
    from insightv.events import AnswerDone, AnswerText, Event, PathDone, PathText, StepEvent, StepStarted, StepText
    from insightv.inputs.images import open_picture, open_question
    from insightv.inputs.questions import read_questions
    from insightv.interfaces import ChatModel, Generator, PreferenceTrainer, ReasoningAgent, Scorer, SummaryAgent
    from insightv.pipeline import Pipeline
    from insightv.plugins import hookimpl
    from insightv.reasoner.reasoner import Reasoner
    from insightv.records import (
        Answer,
        AskOptions,
        Band,
        Completion,
        Message,
        Picture,
        PreferencePair,
        Question,
        ReasoningPath,
        Sampling,
        Schema,
        Score,
        Step,
        Usage,
        seed_of,
    )
    from insightv.runs.reader import load_run
    from insightv.runs.stage_ledger import TrainingResult
    from insightv.runs.status import RunStatus

__all__ = [
    "Answer",
    "AnswerDone",
    "AnswerText",
    "AskOptions",
    "AssessedPath",
    "AssessedQuestion",
    "Band",
    "BudgetSpent",
    "ChatModel",
    "Completion",
    "ConfigError",
    "EndpointParked",
    "Evaluation",
    "Event",
    "Generator",
    "InputError",
    "InsightvError",
    "Interrupted",
    "KeyRefused",
    "Message",
    "MissingExtra",
    "ModelError",
    "ModelUnknown",
    "PathDone",
    "PathText",
    "Picture",
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
    "RunStatus",
    "Sampling",
    "Schema",
    "Score",
    "Scorer",
    "Settings",
    "Step",
    "StepEvent",
    "StepStarted",
    "StepText",
    "StopRun",
    "StorageFull",
    "SummaryAgent",
    "TooManyOpenFiles",
    "TrainingResult",
    "Usage",
    "hookimpl",
    "load_run",
    "open_picture",
    "open_question",
    "read_questions",
    "seed_of",
    "to_text",
]

_HOME = {
    "agents.replies.transcript": "to_text",
    "assess.bands": "AssessedPath AssessedQuestion",
    "config.settings": "Settings",
    "errors": (
        "BudgetSpent ConfigError EndpointParked InputError InsightvError Interrupted KeyRefused MissingExtra "
        "ModelError ModelUnknown PluginError QuotaExhausted RequestsRefused RunChanged RunHeld StopRun "
        "StorageFull TooManyOpenFiles "
    ),
    "evaluate.evaluation": "Evaluation",
    "events": "AnswerDone AnswerText Event PathDone PathText StepEvent StepStarted StepText",
    "inputs.images": "open_picture open_question",
    "inputs.questions": "read_questions",
    "interfaces": "ChatModel Generator PreferenceTrainer ReasoningAgent Scorer SummaryAgent",
    "pipeline": "Pipeline",
    "plugins": "hookimpl",
    "reasoner.reasoner": "Reasoner",
    "records": (
        "Answer AskOptions Band Completion Message Picture PreferencePair Question "
        "ReasoningPath Sampling Schema Score Step Usage seed_of "
    ),
    "runs.reader": "load_run",
    "runs.stage_ledger": "TrainingResult",
    "runs.status": "RunStatus",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _installed_version()
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'insightv' has no attribute {name!r}")
    return getattr(import_module(f"insightv.{module}"), name)


def _installed_version() -> str:
    """The version as installed; "unknown" of a source tree that is not."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("insightv")
    except PackageNotFoundError:
        return "unknown"


def __dir__() -> list[str]:
    return __all__
