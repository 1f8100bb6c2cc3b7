"""A request of the chat completions format -> one question for the two agents.

The reasoner answers one question. Of a longer conversation the texts of system and developer come first, then the
earlier turns under their roles, then the last turn of the user; images of all turns of the user, in order.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from insightv.agents.fencing import fenced
from insightv.config.sections import ServeSection
from insightv.records import LARGEST_COUNT, AskOptions, seed_of
from insightv.server.errors import ApiError

BOTH, REASON, SUMMARY = "insightv", "insightv-reason", "insightv-summary"
MODELS = (BOTH, REASON, SUMMARY)
MOST_MARKS = 20_000
"""Opening brackets and commas of a body beside those that its text may hold; 1000 turns need about 10,000."""

_OBJECT = re.compile(rb"[ \t\r\n]*\{")


class _Loose(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class TextPart(_Loose):
    """A text within a message."""

    type: Literal["text"]
    text: str


class ImageUrl(_Loose):
    """Where an image is: in a data URL, or on a host that images may be fetched from."""

    url: str


class ImagePart(_Loose):
    """An image within a message of the user."""

    type: Literal["image_url"]
    image_url: ImageUrl


# What pydantic keeps of a fault is about a kilobyte: of a list of them, the first is enough.
_Parts = Annotated[list[Annotated[TextPart | ImagePart, Field(discriminator="type")]], Field(fail_fast=True)]


class Turn(_Loose):
    """A message: a text, or parts."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | _Parts | None = None

    @property
    def text(self) -> str:
        """The texts, without images."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if isinstance(part, TextPart)).strip()
        return (self.content or "").strip()

    @property
    def images(self) -> list[str]:
        """The addresses of the images."""
        parts = self.content if isinstance(self.content, list) else []
        return [part.image_url.url for part in parts if isinstance(part, ImagePart)]


class StreamOptions(_Loose):
    """What a stream tells beside the answer."""

    include_usage: bool = False


class OwnFields(BaseModel):
    """The field `insightv` of a request: what the format has no name for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: int = Field(default=1, ge=1)
    show: Literal["best", "all"] | None = None
    max_steps: int | None = Field(default=None, ge=1)
    deadline_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class ChatRequest(_Loose):
    """A question to the agents, in the chat completions format; fields that are not named here are passed over."""

    model: str = Field(json_schema_extra={"enum": list(MODELS)})
    messages: list[Turn] = Field(min_length=1, max_length=1000, fail_fast=True)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    seed: int | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    insightv: OwnFields | None = None


@dataclass(frozen=True)
class Asked:
    """What a request asks. `images` are data URLs, or addresses on hosts that images may be fetched from.

    They are taken out as they are opened; `size` is what the request holds before.
    `ends` is its deadline by the monotonic clock, as its time runs from when the request has arrived. `turns` says that
    the text is that of several turns, each fenced.
    """

    model: str
    text: str
    images: list[str]
    size: int
    seed: int
    options: AskOptions
    ends: float
    paths: int
    show: Literal["best", "all"] | None
    stream: bool
    include_usage: bool
    turns: bool

    @property
    def left_s(self) -> float:
        """The seconds that are left until its deadline."""
        return self.ends - time.monotonic()


def read_request(body: bytes | bytearray, limits: ServeSection) -> Asked:
    """What a body asks.

    Raises:
        ApiError: 400 where it is not JSON, 422 where it asks for what is not offered; 404 where the model is not known;
            413 where it has more values than a question has.
    """
    if not _OBJECT.match(body):
        raise ApiError(400, "invalid_json", "the body is not a JSON object")
    # Values cost up to thirty times their bytes once they are read. An image has one comma, of its data URL.
    if sum(map(body.count, (b"{", b"[", b","))) > limits.max_text + MOST_MARKS:
        raise ApiError(413, "too_many_values", "the body has more values than a question with its images can have")
    try:
        form: dict[str, Any] = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ApiError(400, "invalid_json", "the body is not JSON in UTF-8") from None
    _refuse_unknown_powers(form)
    try:
        chat = ChatRequest.model_validate(form)
    except ValidationError as error:
        raise _invalid(error) from None
    if chat.model not in MODELS:
        raise no_model()
    return _asked(chat, limits)


def no_model() -> ApiError:
    """The error of a name that is no model's."""
    text = f"there is no such model; there are: {', '.join(MODELS)}"
    return ApiError(404, "model_not_found", text, param="model")


def _asked(chat: ChatRequest, limits: ServeSection) -> Asked:
    for place, turn in enumerate(chat.messages):
        if turn.images and turn.role != "user":  # the agents would never see it
            text = f"messages.{place}: only the user's messages may hold images; this is the {turn.role}'s"
            raise ApiError(422, "misplaced_image", text, param=f"messages.{place}")
    images = [url for turn in chat.messages for url in turn.images]
    text, turns = _question(chat.messages)
    own = chat.insightv or OwnFields()
    for what, value, most, param in (
        ("the length of the text", len(text), limits.max_text, "messages"),
        ("the number of images", len(images), limits.max_images, "messages"),
        ("the number of paths", own.paths, limits.max_paths, "insightv.paths"),
    ):
        if value > most:
            raise ApiError(422, "too_much", f"{what} is {value}; the limit is {most}", param=param)
    tokens = [n for n in (chat.max_completion_tokens, chat.max_tokens, limits.max_tokens) if n is not None]
    steps = [n for n in (own.max_steps, limits.max_steps) if n is not None]
    return Asked(
        model=chat.model,
        text=text,
        images=images,
        size=len(text) + sum(map(len, images)),
        seed=_seed(chat.seed or 0),
        options=AskOptions(
            max_steps=min(steps, default=None),
            max_tokens=min(tokens),
            temperature=chat.temperature,
            top_p=chat.top_p,
        ),
        ends=time.monotonic() + min(own.deadline_s or limits.deadline_s, limits.deadline_s),
        paths=own.paths,
        show=own.show,
        stream=bool(chat.stream),
        include_usage=chat.stream_options is not None and chat.stream_options.include_usage,
        turns=turns,
    )


def _invalid(error: ValidationError) -> ApiError:
    """The fault that lies deepest: of a content that is neither text nor parts, what is wrong with the parts."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    worst = max(faults, key=lambda fault: len(fault["loc"]))
    names = (str(part) for part in worst["loc"])
    where = ".".join(name for name in names if "[" not in name)[:200]  # pydantic names the branch of a union too
    what = "Input should be an object" if worst["type"] == "model_type" else worst["msg"][:200]
    return ApiError(422, "invalid_value", f"{where}: {what}", param=where)


def _seed(seed: int) -> int:
    """Any seed of a client as one that the agents take."""
    return seed if 0 <= seed <= LARGEST_COUNT else seed_of("seed", seed)


def _question(turns: list[Turn]) -> tuple[str, bool]:
    """The text, and whether it is of several turns of user and assistant; then none of them can forge another."""
    if turns[-1].role != "user" or not turns[-1].text:
        raise ApiError(422, "no_question", "the last message must be the user's, and hold a text", param="messages")
    told = [turn.text for turn in turns if turn.role in ("system", "developer") and turn.text]
    names = {"user": "User", "assistant": "Assistant"}
    spoken = [(names[turn.role], turn.text) for turn in turns if turn.role in names and turn.text]
    if len(spoken) == 1:
        return "\n\n".join((*told, turns[-1].text)), False
    said = [fenced(text, "System") for text in told]
    said += [fenced(text, name, label=f"{name}: ") for name, text in spoken]
    return "\n\n".join(said), True


NOT_OFFERED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "stop": ([], ""),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}
"""Fields that ask for what the agents cannot do, and the values that ask for nothing."""


def _refuse_unknown_powers(form: dict[str, Any]) -> None:
    for name, harmless in NOT_OFFERED.items():
        value = form.get(name)
        if value is not None and value not in harmless:
            raise ApiError(422, "unsupported_parameter", f"{name} is not supported here; leave it out", param=name)
