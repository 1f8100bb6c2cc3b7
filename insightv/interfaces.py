"""The seams: ChatModel and the five roles, each with one abstract method.

A plugin author reads this file and `records`, nothing else. All are async; blocking calls stand in `Pipeline` and
`Reasoner`. A role raises plain errors; the pipeline records them as failures of the item at hand and continues. A role
never catches `insightv.errors.StopRun`.

A part may be given to `Pipeline` as an object. What identifies it, when its run is resumed, is the class and the
arguments that it was made with: plain values, models and other parts. Where an argument is something else, or results
depend on more, the class says so itself, by a property:

    @property
    def identity(self) -> dict[str, object]:
        return {"words": self.words, "lexicon": self.lexicon.version}

The models of an object are put into the run's journal: those that are its attributes, or stand in lists and dicts that
are, and those of parts that it holds. One that holds a model elsewhere says which ones, and takes the recorded ones:

    @property
    def models(self) -> dict[str, ChatModel]:
        return {"judge": self.client.model}

    def with_models(self, models: Mapping[str, ChatModel]) -> Self:
        return type(self)(Client(models["judge"]))
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Any

from insightv.records import (
    Answer,
    AskOptions,
    Completion,
    Message,
    PreferencePair,
    Question,
    ReasoningPath,
    Sampling,
    Schema,
    Score,
    Step,
)

__all__ = ["ChatModel", "Generator", "PreferenceTrainer", "ReasoningAgent", "Scorer", "SummaryAgent"]


MADE_WITH = "_made_with"
"""The attribute of an object with the arguments that it was made with, by name."""


def _keep_arguments(cls: type) -> None:
    """Let the objects of a class remember the arguments of their constructor: these are the options of a part.

    A run compares them where it is resumed (see `insightv.config.identity`).
    """
    init = vars(cls).get("__init__")
    if init is None:
        return
    signature = inspect.signature(init)

    @wraps(init)
    def remembering(self: object, /, *args: Any, **options: Any) -> None:
        if not hasattr(self, MADE_WITH):  # else: a subclass calls its parent's
            with suppress(TypeError):  # the constructor itself says what is wrong
                given = list(signature.bind(self, *args, **options).arguments.items())[1:]
                defaults = {name: each.default for name, each in signature.parameters.items()}
                # An argument that is its default says nothing: a later release may have more of them.
                kept = {name: value for name, value in given if value is not defaults[name]}
                object.__setattr__(self, MADE_WITH, kept)
        init(self, *args, **options)

    type.__setattr__(cls, "__init__", remembering)


class _Part:
    """What parts have in common: they remember what they were made with, and stream what they give as a whole."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        _keep_arguments(cls)
        for role in cls.__mro__:
            if (twins := vars(role).get("_twins")) is not None:
                cls._in_pieces(role, *twins)

    @classmethod
    def _in_pieces(cls, role: type, whole: str, pieces: str) -> None:
        """Let a class that gives the whole anew, or takes it from a mixin, stream that, not its parent's pieces."""
        places = {name: place for place, each in reversed(list(enumerate(cls.__mro__))) for name in vars(each)}
        if places[whole] < places[pieces]:
            setattr(cls, pieces, getattr(role, pieces))


class ChatModel(_Part, ABC):
    """A model that answers a conversation. Backends implement this and nothing else."""

    name: str = ""
    """Identity in journals and data, `provider/model`; set by the loader from the configuration."""
    setbacks: Mapping[str, int] = MappingProxyType({})
    """Tries that had to be repeated since the model was made, by class ("429", ...); a run sums them up."""

    _twins = ("chat", "stream")

    @abstractmethod
    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        """Draw up to `n` replies to one conversation (a backend that cannot draw several returns fewer, at least one).

        A cut or refused reply is a Completion that says so, not an error.

        Raises:
            ModelError: not answered within the backend's tries and deadline.
            StopRun: asking again is pointless (key refused, quota, ...).
        """

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, *, schema: Schema | None = None
    ) -> AsyncIterator[str | Completion]:
        """The reply in pieces of text as they come, then the whole as a Completion. By default: one piece."""
        completion = (await self.chat(messages, sampling, schema=schema))[0]
        yield completion.text
        yield completion

    async def check(self) -> None:
        """Look, without paying, whether the model can be asked at all; nothing to look at by default.

        Raises:
            ConfigError: it cannot (no server listens, the model cannot be loaded); nothing has been started yet.
        """
        return None

    async def aclose(self) -> None:
        """Let go of connections, processes and memory; nothing to do by default."""
        return None


class Generator(_Part, ABC):
    """Writes paths of reasoning for building data."""

    _twins = ("generate", "stream")

    @abstractmethod
    async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
        """Exactly `n` paths with indices 0..n-1 in order; those that did not work out are rejected or failed."""

    async def stream(self, question: Question, *, seed: int = 0) -> AsyncIterator[Step | ReasoningPath]:
        """The steps of one path as they come, then the path. By default: the path alone."""
        yield (await self.generate(question, 1, seed=seed))[0]

    def within(self, options: AskOptions) -> Generator:
        """This generator for one question, kept to `options`. By default itself, as it is set."""
        return self


class Scorer(_Part, ABC):
    """Judges the paths of one question."""

    @abstractmethod
    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        """One score per path, in order. What could not be judged has value and accepted None."""


class ReasoningAgent(_Part, ABC):
    """Reasons at length about a question."""

    _twins = ("reason", "stream_reason")

    @abstractmethod
    async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
        """One path; rejected or failed where it did not work out."""

    async def stream_reason(self, question: Question, *, seed: int = 0) -> AsyncIterator[str | ReasoningPath]:
        """The path's text in pieces as they come, then the path. By default: the path alone."""
        yield await self.reason(question, seed=seed)

    def within(self, options: AskOptions) -> ReasoningAgent:
        """This agent for one question, kept to `options`. By default itself, as it is set."""
        return self


class SummaryAgent(_Part, ABC):
    """Judges a path and answers."""

    _twins = ("summarize", "stream_summary")

    @abstractmethod
    async def summarize(self, question: Question, path: ReasoningPath) -> Answer:
        """The answer to the question, with the path's help where the path is right. `path` may be cut or failed."""

    async def stream_summary(self, question: Question, path: ReasoningPath) -> AsyncIterator[str | Answer]:
        """The answer's text in pieces as they come, then the answer. By default: the answer alone."""
        yield await self.summarize(question, path)

    def within(self, options: AskOptions) -> SummaryAgent:
        """This agent for one question, kept to `options`. By default itself, as it is set."""
        return self


class PreferenceTrainer(ABC):
    """Sharpens a policy on pairs of its own paths."""

    @abstractmethod
    def train(self, policy: Path, pairs: Sequence[PreferencePair], out: Path) -> Path:
        """Train the checkpoint directory `policy` on `pairs` into the directory `out`; returns `out`.

        What is returned is a model directory that transformers loads, with weights in safetensors. A file with the
        hashes of all others is written into it, by which it is known to be whole from then on.
        """
