"""`Reasoner`: the two agents as one object. One reasons at length, one judges that reasoning and answers.

reasoner = Reasoner.of("openai/qwen2.5-vl-7b", base_url="http://localhost:8000/v1")
print(reasoner.answer("chart.png", "Which bar is tallest?").text)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insightv.config import check_settings, load_settings
from insightv.doors import blocking
from insightv.errors import ConfigError, InputError
from insightv.images import aopen_question
from insightv.interfaces import ChatModel, ReasoningAgent, SummaryAgent
from insightv.plugins import Registry, default_registry
from insightv.records import Answer, Picture, Question, ReasoningPath
from insightv.run import CONFIG
from insightv.trained import trained_folders, with_trained
from insightv.wiring import Workshop

if TYPE_CHECKING:
    pass

ImageSource = "str | Path | bytes | Image.Image | Picture"


@dataclass(frozen=True)
class PathText:
    """A piece of the path's text, as it comes."""

    text: str


@dataclass(frozen=True)
class PathDone:
    """The path, whole or as far as it came."""

    path: ReasoningPath


@dataclass(frozen=True)
class AnswerText:
    """A piece of the answer's text, as it comes."""

    text: str


@dataclass(frozen=True)
class AnswerDone:
    """The answer, with its path and the usage of both agents."""

    answer: Answer


Event = PathText | PathDone | AnswerText | AnswerDone


class Reasoner:
    """A reasoning agent and a summary agent. `models` are closed with the reasoner."""

    trained: bool = False
    """Whether the agents are the checkpoints that a run has trained."""

    def __init__(
        self, reasoning_agent: ReasoningAgent, summary_agent: SummaryAgent, *, models: Sequence[ChatModel] = ()
    ) -> None:
        self.reasoning_agent = reasoning_agent
        self.summary_agent = summary_agent
        self._models = tuple(models)

    @classmethod
    def of(
        cls,
        model: ChatModel | str,
        summary_model: ChatModel | str | None = None,
        *,
        registry: Registry | None = None,
        **backend: Any,
    ) -> Reasoner:
        """A reasoner over one or two models, each an object or `provider/model` with options of its backend.

        Raises:
            PluginError, ConfigError: the model cannot be made.
        """
        from insightv.agents.reasoning import ThoughtsReasoner
        from insightv.agents.summary import JudgingSummary

        workshop = Workshop(registry or default_registry(), check_settings({}))
        first = workshop.model(model, backend) if isinstance(model, str) else model
        second = first if summary_model is None else summary_model
        if isinstance(second, str):
            second = workshop.model(second, backend)
        return cls(ThoughtsReasoner(first), JudgingSummary(second), models=workshop.models)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        trained: bool | None = None,
        backend: str = "hf",
        registry: Registry | None = None,
        **options: Any,
    ) -> Reasoner:
        """The two agents of a run, or of a folder that holds the checkpoints `reasoning` and `summary`.

        Trained agents are served by `backend` with its `options`; those of a run that was not trained are the ones that
        its `config.toml` names. `trained` says which are wanted (None: the trained ones where there are any), and the
        reasoner's own `trained` which they are.

        Raises:
            InputError: there is neither a run nor checkpoints, or a checkpoint is not whole.
            PluginError, ConfigError: a model cannot be made.
        """
        path = Path(source) / CONFIG
        folders = None if trained is False else trained_folders(source)
        if folders is None and not path.is_file():
            raise InputError(
                f"there is no run in {str(source)!r} (no {CONFIG}) and no checkpoint; make one with: insightv build"
            )
        if folders is None and trained:
            raise InputError(f"the run {str(source)!r} has no trained agents yet; train them with: insightv train")
        if folders is None and options:
            raise ConfigError(f"the options {sorted(options)} are for trained agents; set others in {CONFIG}")
        settings = load_settings(path if path.is_file() else None)
        if folders is not None:
            settings = with_trained(settings, folders, backend, options)
        workshop = Workshop(registry or default_registry(), settings)
        reasoner = cls(workshop.reasoning_agent(), workshop.summary_agent(), models=workshop.models)
        reasoner.trained = folders is not None
        return reasoner

    def __repr__(self) -> str:
        models = ", ".join(model.name for model in self._models)
        return f"<Reasoner, {'trained' if self.trained else 'not trained here'}: {models or 'models given as objects'}>"

    def answer(self, images: Any, question: str | Question, *, seed: int = 0) -> Answer:
        """`aanswer`, blocking; works inside a notebook too."""
        return blocking(self.aanswer(images, question, seed=seed))

    async def aanswer(self, images: Any, question: str | Question, *, seed: int = 0) -> Answer:
        """The answer to a question about an image (or several, in a list, or none: an empty list).

        An image is a path, a data URL, the bytes of a file, a PIL image or a Picture. A path that fails or is cut still
        leads to an answer, marked in its flags.

        Raises:
            ImageError: an image cannot be used.
            ModelError: the summary agent's model did not answer.
            StopRun: asking again is pointless (key refused, quota, unknown model).
        """
        asked = await opened_question(images, question)
        path = await self.reasoning_agent.reason(asked, seed=seed)
        return _joined(await self.summary_agent.summarize(asked, path), path)

    async def astream(self, images: Any, question: str | Question, *, seed: int = 0) -> AsyncIterator[Event]:
        """The same as events: the path's text, the path, the answer's text, the answer. Raises as `aanswer`."""
        asked = await opened_question(images, question)
        path: ReasoningPath | None = None
        async with aclosing(self.reasoning_agent.stream_reason(asked, seed=seed)) as pieces:  # type: ignore[type-var]  # an async generator in fact
            async for piece in pieces:
                if isinstance(piece, ReasoningPath):
                    path = piece
                else:
                    yield PathText(piece)
        if path is None:
            raise TypeError(f"{type(self.reasoning_agent).__name__}.stream_reason() ended without a path")
        yield PathDone(path)
        async with aclosing(self.summary_agent.stream_summary(asked, path)) as parts:  # type: ignore[type-var]  # as above
            async for part in parts:
                yield AnswerDone(_joined(part, path)) if isinstance(part, Answer) else AnswerText(part)

    def close(self) -> None:
        """`aclose`, blocking."""
        blocking(self.aclose())

    async def aclose(self) -> None:
        """Close the models that this reasoner has made."""
        for model in self._models:
            await model.aclose()


async def opened_question(images: Any, question: str | Question) -> Question:
    """The question with its images opened; `images` may be one image or a list.

    Raises:
        ImageError: an image cannot be used.
    """
    if isinstance(question, str):
        question = Question(id="asked", question=question)
    from insightv.images import open_picture

    sources = images if isinstance(images, list | tuple) else [images]
    pictures = tuple([source if isinstance(source, Picture) else open_picture(source) for source in sources])
    return await aopen_question(question.model_copy(update={"images": pictures or question.images}))


def _joined(answer: Answer, path: ReasoningPath) -> Answer:
    return answer.model_copy(update={"path": path, "usage": path.usage + answer.usage})
