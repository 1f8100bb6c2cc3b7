"""`Reasoner`: the two agents as one object. One reasons at length, one judges that reasoning and answers.

reasoner = Reasoner.of("openai/qwen2.5-vl-7b", base_url="http://localhost:8000/v1")
print(reasoner.answer("chart.png", "Which bar is tallest?").text)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Self

from insightv.concurrency import all_of, blocking_stream_twin, blocking_twin
from insightv.config.plugin_loading import default_registry
from insightv.config.roles import RoleFactory
from insightv.config.settings import Settings, check_settings
from insightv.errors import ConfigError, InputError, InsightvError
from insightv.events import Event, PathDone
from insightv.inputs.images import ImageSource, question_about
from insightv.interfaces import ChatModel, ReasoningAgent, Scorer, SummaryAgent
from insightv.plugin_guard import checked, closed, described, models_in, unfit
from insightv.plugins import Registry
from insightv.reasoner.answers import answered, answered_many, answering
from insightv.reasoner.checkpoint_agents import settings_of_agents, trained_folders
from insightv.reasoner.paths import Deadline, for_path, several_paths, shown_path, step_events, walk
from insightv.records import LARGEST_COUNT, Answer, AskOptions, Question, ReasoningPath
from insightv.runs.reader import CONFIG

Show = Literal["best", "all"]
_AS_SET = AskOptions()


class Reasoner:
    """A reasoning agent and a summary agent.

    `scorer` chooses among several paths of one question. `models` are closed with the reasoner, which is also a
    context manager: `with Reasoner.load(run) as reasoner`, or `async with`.

    Raises:
        ConfigError: an agent is none, or lacks what its role asks of it.
    """

    trained: bool = False
    """Whether the agents are the checkpoints that a run has trained."""

    def __init__(
        self,
        reasoning_agent: ReasoningAgent,
        summary_agent: SummaryAgent,
        *,
        scorer: Scorer | None = None,
        models: Sequence[ChatModel] = (),
    ) -> None:
        parts: tuple[tuple[str, object, type], ...] = (
            ("reasoning_agent", reasoning_agent, ReasoningAgent),
            ("summary_agent", summary_agent, SummaryAgent),
            ("scorer", scorer, Scorer),
        )
        for name, part, role in parts if scorer is not None else parts[:2]:
            if not isinstance(part, role):
                cure = "; Reasoner.of(model) makes both agents of a model" if isinstance(part, ChatModel) else ""
                raise ConfigError(f"{name} is {described(part)}; give an object of {role.__name__}{cure}")
            if fault := unfit(part, role):
                raise ConfigError(f"{name}: {fault}")
        self.reasoning_agent = reasoning_agent
        self.summary_agent = summary_agent
        self.scorer = scorer
        self._models = tuple(models)
        held = (model for part in (reasoning_agent, summary_agent, scorer) for model in models_in(part))
        self._asked = tuple({id(model): model for model in (*models, *held)}.values())

    @classmethod
    def of(
        cls,
        model: ChatModel | str,
        summary_model: ChatModel | str | None = None,
        *,
        base_url: str | Sequence[str] | None = None,
        registry: Registry | None = None,
        **backend: Any,
    ) -> Reasoner:
        """A reasoner over one or two models, each an object or `provider/model` with options of its backend.

        Raises:
            PluginError, ConfigError: a model cannot be made, or is neither; the options are for none.
        """
        from insightv.agents.reasoning import ThoughtsReasoner
        from insightv.agents.summary import JudgingSummary

        workshop = RoleFactory(registry or default_registry(), check_settings({}))
        if base_url is not None:
            backend["base_url"] = base_url
        if backend and not isinstance(model, str) and not isinstance(summary_model, str):
            raise ConfigError(
                f"the options {sorted(backend)} are for a model by name; set them where the object is made"
            )
        first = _chat_model(workshop, "model", model, backend)
        second = first if summary_model is None else _chat_model(workshop, "summary_model", summary_model, backend)
        return cls(ThoughtsReasoner(first), JudgingSummary(second), models=workshop.models)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        trained: bool | None = None,
        backend: str = "hf",
        registry: Registry | None = None,
        settings: Settings | None = None,
        trust: bool = False,
        **options: Any,
    ) -> Reasoner:
        """The two agents of a run, or of a folder that holds the checkpoints `reasoning` and `summary`.

        Trained agents are served by `backend` with its `options`; those of a run that was not trained are the ones that
        its `config.toml` names. `trained` says which are wanted (None: the trained ones where there are any), and the
        reasoner's own `trained` which they are. `settings` stand in place of those in `config.toml`. `trust` consents
        to what that file starts, sends and opens for agents that are not trained, where somebody else made the run.

        Raises:
            InputError: there is neither a run nor checkpoints, or a checkpoint is not whole.
            PluginError, ConfigError: a model cannot be made, `settings` name one that a checkpoint stands in for, or
                what `config.toml` asks has no consent.
        """
        path = Path(source) / CONFIG
        folders = {} if trained is False else trained_folders(source)
        if not folders and not path.is_file():
            raise InputError(
                f"there is no run in {str(source)!r} (no {CONFIG}) and no checkpoint; make one with: insightv build"
            )
        if not folders and trained:
            raise InputError(f"the run {str(source)!r} has no trained agents yet; train them with: insightv train")
        if not folders and options:
            raise ConfigError(f"the options {sorted(options)} are for trained agents; set others in {CONFIG}")
        settings = settings_of_agents(source, folders, settings, backend, options, trust=trust)
        folder = Path(source) if path.is_file() else None
        workshop = RoleFactory(registry or default_registry(), settings, folder=folder)
        reasoner = cls(workshop.reasoning_agent(), workshop.summary_agent(), models=workshop.models)
        reasoner.trained = bool(folders)
        return reasoner

    def __repr__(self) -> str:
        models = ", ".join(model.name for model in self._models)
        return f"<Reasoner, {'trained' if self.trained else 'not trained here'}: {models or 'models given as objects'}>"

    async def aanswer(
        self,
        images: ImageSource | Sequence[ImageSource],
        question: str | Question,
        *,
        seed: int = 0,
        options: AskOptions | Mapping[str, Any] = _AS_SET,
        paths: int = 1,
        show: Show | None = None,
    ) -> Answer:
        """The answer to a question about an image (or several, in a list, or none: an empty list).

        A path that fails or is cut still leads to an answer, marked in its flags. Cancelling it ends the
        calls in flight.

        Args:
            images: each a path, a data URL, the bytes of a file, a PIL image or a Picture.
            question: asked about them.
            seed: the same question with the same seed is drawn alike, as far as the models keep to seeds.
            options: limits of this question, and how it is drawn; also as a dict, {"deadline_s": 60}.
            paths: how many paths are reasoned.
            show: what the summary agent sees of several paths: "best" by the scorer (the default where there is one),
                or "all".

        Raises:
            InputError: the question is empty, or an image cannot be used (ImageError).
            ValueError: seed, options, paths or show are not such.
            ModelError: the summary agent gave no answer (`timeout`: within the deadline; `agent_error`: it failed); it
                has the paths.
            StopRun: asking again is pointless (key refused, quota, unknown model).
        """
        options = AskOptions.model_validate(options)
        deadline = Deadline(options.deadline_s)
        show = self._show(seed, paths, show)
        asked = await question_about(images, question)
        found = await several_paths(self.reasoning_agent, asked, seed, options, paths, deadline)
        shown = await shown_path(self.scorer if show == "best" else None, asked, found, deadline)
        return await answered(self.summary_agent, asked, shown, found, options, deadline)

    answer: Final = blocking_twin(aanswer)

    async def astream(
        self,
        images: ImageSource | Sequence[ImageSource],
        question: str | Question,
        *,
        seed: int = 0,
        options: AskOptions | Mapping[str, Any] = _AS_SET,
        paths: int = 1,
        show: Show | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The same as events while it comes (see `insightv.events`); each agent has one try.

        Of several paths the one that the summary agent sees is sent, once all are there. Raises as `aanswer`. Close it
        (`aclosing`) where it is left early: that ends the calls in flight.
        """
        options = AskOptions.model_validate(options)
        deadline = Deadline(options.deadline_s)
        show = self._show(seed, paths, show)
        asked = await question_about(images, question)
        found: list[ReasoningPath] = []
        if paths == 1:
            agent = self.reasoning_agent.within(for_path(options, 1))
            async with aclosing(walk(agent, asked, seed, deadline, options.max_steps)) as events:
                async for event in events:
                    if isinstance(event, ReasoningPath):
                        found.append(event)
                    else:
                        yield event
        else:
            found = await several_paths(self.reasoning_agent, asked, seed, options, paths, deadline)
        shown = await shown_path(self.scorer if show == "best" else None, asked, found, deadline)
        for step in () if paths == 1 else step_events(shown):
            yield step
        yield PathDone(shown)
        async with aclosing(answering(self.summary_agent, asked, shown, found, options, deadline)) as parts:
            async for part in parts:
                yield part

    stream: Final = blocking_stream_twin(astream)

    async def aanswer_many(
        self,
        questions: Iterable[Question],
        *,
        concurrency: int = 16,
        seed: int = 0,
        options: AskOptions | Mapping[str, Any] = _AS_SET,
        paths: int = 1,
        show: Show | None = None,
    ) -> list[Answer | InsightvError]:
        """The answers in the order of the questions, `concurrency` at work at once; the others are as in `aanswer`.

        Where one could not be answered its error stands in its place, and the others continue. After a StopRun none is
        begun; those that were not have that error too.

        Raises:
            ValueError: concurrency is less than 1.
            InputError: `questions` is one question, or the name of a file.
        """
        ask = partial(self.aanswer, seed=seed, options=options, paths=paths, show=show)
        return await answered_many(ask, questions, concurrency)

    answer_many: Final = blocking_twin(aanswer_many)

    async def acheck(self) -> None:
        """Look, without paying, whether the models, those of agents that were given too, can be asked at all.

        Raises:
            ConfigError: one of them cannot.
        """
        await all_of([checked(model) for model in self._asked])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the models that this reasoner has made."""
        await closed(self._models)

    close: Final = blocking_twin(aclose)

    def _show(self, seed: int, paths: int, show: Show | None) -> Show:
        if not 0 <= seed <= LARGEST_COUNT:
            raise ValueError(f"seed = {seed}: a seed is a whole number from 0 to {LARGEST_COUNT}")
        if paths < 1:
            raise ValueError(f"paths = {paths}: at least one path must be reasoned")
        if show not in (None, "best", "all"):
            raise ValueError(f'show = {show!r}: it is "best" or "all"')
        if show == "best" and self.scorer is None and paths > 1:
            raise ConfigError('show = "best" needs a scorer; give the reasoner one, or show = "all"')
        return show or ("all" if self.scorer is None else "best")


def _chat_model(workshop: RoleFactory, name: str, given: object, backend: Mapping[str, Any]) -> ChatModel:
    if isinstance(given, str):
        return workshop.model(given, backend)
    if not isinstance(given, ChatModel):
        cure = 'give provider/model or an object of ChatModel; "openai/MODEL" takes an AsyncOpenAI as client=...'
        raise ConfigError(f"{name} is {described(given)}; {cure}")
    return given
