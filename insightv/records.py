"""The values that travel through a run: all frozen, all checked, none of them knows a model, a file or a prompt."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from insightv.strict_json import Json as Json

LARGEST_COUNT = 2**53
Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
"""Whole numbers that every format keeps exactly: JSON, SQLite, Parquet."""
PathStatus = Literal["ok", "rejected", "failed"]
Finish = Literal["stop", "length", "refusal"]
Action = Literal["continue", "summary"]


class Record(BaseModel):
    """A frozen value without unknown fields."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class Picture(Record):
    """An image as it is sent to models: checked, upright, without metadata, encoded once.

    `data` is the encoded file, `sha256` its hex digest, `width` and `height` are in pixels.
    """

    data: bytes = Field(repr=False)
    mime: Literal["image/jpeg", "image/png", "image/webp"]
    sha256: str
    width: int = Field(ge=1)
    height: int = Field(ge=1)

    @cached_property
    def data_url(self) -> str:
        """The picture as a data URL; encoded on first use and kept as long as the picture is."""
        return f"data:{self.mime};base64,{base64.b64encode(self.data).decode('ascii')}"


class Question(Record):
    """A question about images.

    `images` holds sources (paths or data URLs) until they are opened, `Picture`s after. `answer` is the ground truth
    where there is one, `answers` are further ones that are as right. Keys of the input that the library does not know
    are kept in `meta`.
    """

    id: str = Field(min_length=1, max_length=200)
    question: str = Field(min_length=1)
    images: tuple[Picture | str, ...] = ()
    answer: str | None = None
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] | None = None
    meta: dict[str, Any] = Field(default_factory=dict)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The opened images, in order.

        Raises:
            ValueError: an image is still a source; `insightv.open_question` opens all of a question.
        """
        opened = tuple(image for image in self.images if isinstance(image, Picture))
        if len(opened) != len(self.images):
            raise ValueError(f"question {self.id!r}: its images are not opened yet; use insightv.open_question")
        return opened

    @property
    def text(self) -> str:
        """The question as models are asked it: the text, then the choices by letter, one on a line."""
        if not self.choices:
            return self.question
        lines = (f"({chr(ord('A') + i)}) {choice}" for i, choice in enumerate(self.choices))
        return "\n".join((self.question, *lines))


class Message(Record):
    """One turn of a conversation: a text, or texts and pictures in order."""

    role: Literal["system", "user", "assistant"]
    content: str | tuple[str | Picture, ...]

    @property
    def parts(self) -> tuple[str | Picture, ...]:
        """The content as a tuple, also where it is one text."""
        return (self.content,) if isinstance(self.content, str) else self.content

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of role and content; a picture counts by its own digest."""
        form: list[Any] = [self.role, isinstance(self.content, str)]
        form += [part if isinstance(part, str) else {"picture": part.sha256} for part in self.parts]
        return hashlib.sha256(json.dumps(form, ensure_ascii=True).encode()).digest()


RESERVED = frozenset({"messages", "model", "n", "seed", "stream", "stream_options", "response_format"})
"""Fields of a request that insightv sets itself."""


class Sampling(Record):
    """How a reply is drawn. `extra` goes to the server as it is (repetition_penalty and the like).

    It may replace other fields of the request, but not those in `RESERVED`.
    """

    temperature: float = Field(default=0.7, ge=0, le=10, allow_inf_nan=False)
    top_p: float = Field(default=0.95, gt=0, le=1, allow_inf_nan=False)
    max_tokens: int = Field(default=1024, ge=1)
    seed: Count = 0
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("extra")
    @classmethod
    def _none_reserved(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if reserved := sorted(RESERVED & extra.keys()):
            raise ValueError(
                f"it holds {', '.join(reserved)}, which insightv sets itself; leave that out, or see omit and rename"
            )
        return extra


class AskOptions(Record):
    """What one question may take, and how its replies are drawn; None leaves it as the agents are set.

    `deadline_s` bounds the whole, `max_steps` the steps of a path, `max_tokens` what both agents write together. A
    limit never raises an agent's own.
    """

    deadline_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_steps: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=10, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)


class Schema(Record):
    """The JSON schema that a reply must follow; `name` says which call it is (`reasoning_step`, ...)."""

    name: str
    definition: dict[str, Any]


class Usage(Record):
    """What was spent. `cached_tokens` is the part of `prompt_tokens` served from a prefix cache.

    `requests` counts every try that reached the server, failed ones too.
    """

    prompt_tokens: Count = 0
    cached_tokens: Count = 0
    completion_tokens: Count = 0
    requests: Count = 0

    def __add__(self, other: Usage) -> Usage:
        if self.is_nothing:
            return other
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields})

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was spent."""
        return not (self.requests or self.prompt_tokens or self.completion_tokens or self.cached_tokens)


class Completion(Record):
    """One reply of a model, byte for byte as it came.

    `finish` is "stop" (complete), "length" (cut off by the token limit) or "refusal" (refused or filtered). Of the n
    replies to one request the first carries the usage of the whole request. `call` is the key under which a run's
    journal has recorded the call, None outside a run. `thoughts` are what the model thought before it replied, where
    the server tells them apart from the reply.
    """

    text: str
    finish: Finish = "stop"
    usage: Usage = Usage()
    call: str | None = None
    thoughts: str = ""

    def under(self, call: str) -> Completion:
        """The same reply as one that the journal has recorded under a key."""
        return Completion(text=self.text, finish=self.finish, usage=self.usage, call=call, thoughts=self.thoughts)

    def costing(self, usage: Usage) -> Completion:
        """The same reply with another usage."""
        return Completion(text=self.text, finish=self.finish, usage=usage, call=self.call, thoughts=self.thoughts)


class Step(Record):
    """One step of reasoning."""

    title: str
    content: str
    action: Action


class ReasoningPath(Record):
    """A path of reasoning about one question, whole or as far as it came.

    `index` counts from 0 within the question. `status` "ok" has steps and an answer; "rejected" means that the model's
    replies were not usable, "failed" that the calls were not answered; both have a `code` and nothing made up.
    `calls` are the journal keys of the calls whose replies are in the path.
    """

    question_id: str
    index: int = Field(ge=0)
    status: PathStatus
    code: str | None = None
    detail: str = ""
    steps: tuple[Step, ...] = ()
    answer: str | None = None
    model: str = ""
    seed: Count = 0
    usage: Usage = Usage()
    flags: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()


def _within(value: object, least: float, most: float) -> bool:
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number is said to be none
    except (TypeError, ValueError, OverflowError):
        return False
    return math.isfinite(number) and least <= number <= most


class Score(Record):
    """A scorer's judgement of one path.

    `value` is on 1..100, `accepted` says whether the path survives this scorer; None means "could not be judged".
    """

    scorer: str
    value: Annotated[float, Field(ge=1, le=100)] | None = None
    accepted: bool | None = None
    reason: str = ""
    details: dict[str, Any] = Field(default_factory=dict)

    @field_validator("value", mode="before")
    @classmethod
    def _on_the_scale(cls, value: object) -> object:
        # True is a number to Python, as numpy's and torch's is, and would be the worst score.
        verdict = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
        if value is not None and (verdict or isinstance(value, str | bytes) or not _within(value, 1, 100)):
            cure = "; a verdict goes into `accepted`" if verdict else ""
            raise ValueError(f"a score is a number on 1..100, or None for not judged, not {value!r}{cure}")
        return value


class Band(StrEnum):
    """Where a path ends up after assessment."""

    high = "high"
    mid = "mid"
    low = "low"
    wrong = "wrong"
    unscored = "unscored"


class Answer(Record):
    """The two agents' answer.

    `followed` says whether it agrees with what the path comes to, False where it overrules it; None: cannot be told.
    Where several paths were asked for they are in `paths`, `path` is what the summary agent saw of them, and
    `agreement` is the share (0..1) of those that come to the answer among those of which that can be told.
    """

    text: str
    path: ReasoningPath | None = None
    followed: bool | None = None
    usage: Usage = Usage()
    flags: tuple[str, ...] = ()
    paths: tuple[ReasoningPath, ...] = ()
    agreement: float | None = Field(default=None, ge=0, le=1)


class PreferencePair(Record):
    """Two paths of one question, of which `chosen` is better by `margin` points of score."""

    question_id: str
    chosen: ReasoningPath
    rejected: ReasoningPath
    margin: float
    meta: Mapping[str, Any] = Field(default_factory=dict)


def seed_of(*parts: int | str) -> int:
    """A seed on 0..2**31-1 from the parts, the same on every machine and in every process."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4], "big") >> 1
