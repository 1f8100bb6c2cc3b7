"""Is this a backend? The contract of `insightv.ChatModel`, checked on small conversations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence

from pydantic import ValidationError

from insightv.errors import ModelError, StopRun
from insightv.interfaces import ChatModel
from insightv.records import Completion, Message, Sampling, Schema, Usage
from insightv.testing.running import (
    ConformanceError,
    Limits,
    called,
    ends_when_cancelled,
    made,
    run_checks,
    snapshot,
    unchanged,
)
from insightv.testing.samples import sample_picture

_N = 3
_SCHEMA = Schema(
    name="final_answer",
    definition={
        "type": "object",
        "properties": {"answer": {"type": "string"}},
        "required": ["answer"],
        "additionalProperties": False,
    },
)


def check_backend(
    model: ChatModel | Callable[[], ChatModel],
    *,
    images: bool = True,
    deterministic: bool = False,
    structured: bool = False,
    broken: Callable[[], ChatModel] | None = None,
    max_tokens: int = 32,
    cancel_after_s: float = 0.02,
    block_s: float = 0.2,
    timeout_s: float = 60.0,
) -> None:
    """Check that a backend keeps its contract. It is closed at the end.

    Checked are: 1..n Completions that hold what they must; the usage of a request on its first reply; the input as it
    was; an event loop that others can use; concurrent calls that do not disturb each other; a cancelled call that lets
    go and leaves the model usable; a stream whose pieces are its text; `aclose` twice.

    Args:
        model: a backend, or a function or class that makes it without arguments.
        images: False for a backend of a model without eyes.
        deterministic: the same call with the same seed must give the same text, alone and among others.
        structured: a reply under a schema must be JSON with the schema's keys.
        broken: makes the backend so that it cannot answer (a closed port, say): it must raise ModelError or StopRun.
        max_tokens: of each reply.
        cancel_after_s: when a call is cancelled, seconds after its start.
        block_s: how long a call may hold the event loop, seconds.
        timeout_s: how long a call may take, seconds.

    Raises:
        ConformanceError: with what is wrong, the value and the cure.
    """
    limits = Limits(timeout_s=timeout_s, block_s=block_s)

    async def checks() -> None:
        backend = made(model, ChatModel, None)
        check = _Checks(backend, limits, max_tokens)
        await check.replies(images, structured)
        await check.together(deterministic)
        await check.cancelled(cancel_after_s)
        await check.streamed(deterministic)
        await check.closed()
        if broken is not None:
            await _fails(made(broken, ChatModel, None), limits)

    run_checks(checks(), limits, "chat()")


class _Checks:
    def __init__(self, model: ChatModel, limits: Limits, max_tokens: int) -> None:
        self._model = model
        self._limits = limits
        self._max_tokens = max_tokens

    async def replies(self, images: bool, structured: bool) -> None:
        await self._chat("one message", _conversation("Say yes."))
        await self._chat(f"n={_N}", _conversation("Say yes."), n=_N)
        longer = [
            Message(role="system", content="You are brief."),
            *_conversation("Say yes."),
            Message(role="assistant", content="yes"),
            *_conversation("And once more."),
        ]
        await self._chat("system, user, assistant and user", longer)
        if images:
            seen = Message(role="user", content=(sample_picture(), "How many bars?", sample_picture((9,)), "And here?"))
            await self._chat("two pictures between texts", [seen])
        texts = await self._chat("a schema", _conversation("Answer yes, as JSON."), schema=_SCHEMA)
        if structured:
            _check_structured(texts[0])

    async def together(self, deterministic: bool) -> None:
        asked = [_conversation(f"Say the number {i}.") for i in range(4)]
        alone = [await self._chat("a call alone", messages) for messages in asked]
        both = await asyncio.gather(*(self._chat("one of four calls at a time", messages) for messages in asked))
        if deterministic and alone != both:
            raise ConformanceError(
                f"the same four calls gave {alone} one after the other and {both} at the same time; a reply depends on "
                "its own messages, sampling and seed only"
            )
        if deterministic and alone[0] != (again := await self._chat("the first call again", asked[0])):
            raise ConformanceError(f"the same call with the same seed gave {alone[0]}, then {again}")

    async def cancelled(self, after_s: float) -> None:
        messages, sampling = _conversation("Say the alphabet."), self._sampling()
        other = asyncio.create_task(self._chat("a call beside one that is cancelled", _conversation("Say yes.")))
        await ends_when_cancelled("chat()", lambda: self._model.chat(messages, sampling), after_s, self._limits)
        await other
        await self._chat("a call after one that was cancelled", _conversation("Say yes."))

    async def streamed(self, deterministic: bool) -> None:
        messages, sampling = _conversation("Say yes."), self._sampling()

        async def read() -> list[str | Completion]:
            return [piece async for piece in self._model.stream(messages, sampling)]

        pieces = await called("stream()", read, self._limits)
        whole = pieces[-1] if pieces else None
        texts = [piece for piece in pieces[:-1] if isinstance(piece, str)]
        if not isinstance(whole, Completion) or len(texts) != len(pieces) - 1:
            kinds = [type(piece).__name__ for piece in pieces][-8:]
            raise ConformanceError(f"stream() ended with {kinds}; it is pieces of text, then one Completion at the end")
        _checked("stream()", [whole], 1)
        if "".join(texts) != whole.text:
            raise ConformanceError(
                f"stream() gave {''.join(texts)!r:.200} in pieces, but {whole.text!r:.200} as a whole"
            )
        if deterministic and [whole.text] != (text := await self._chat("the streamed call", messages)):
            raise ConformanceError(f"stream() gave {whole.text!r:.200}, chat() gives {text!r:.200}")
        await self._left_early(messages, sampling)

    async def _left_early(self, messages: list[Message], sampling: Sampling) -> None:
        async def leave() -> None:
            stream = self._model.stream(messages, sampling)
            await anext(stream)
            close = getattr(stream, "aclose", None)
            if close is None:
                raise ConformanceError(
                    f"stream() returned a {type(stream).__name__} without aclose; make it a generator"
                )
            await close()

        await called("stream(), left after its first piece,", leave, self._limits)
        await self._chat("a call after a stream that was left early", messages)

    async def closed(self) -> None:
        await called("aclose()", self._model.aclose, self._limits)
        await called("aclose() a second time", self._model.aclose, self._limits)

    async def _chat(self, what: str, messages: list[Message], *, n: int = 1, schema: Schema | None = None) -> list[str]:
        what = f"chat() with {what}"
        sampling, given = self._sampling(), list(messages)
        before = snapshot(*messages, sampling)
        replies = await called(what, lambda: self._model.chat(given, sampling, n=n, schema=schema), self._limits)
        if len(given) != len(messages):
            raise ConformanceError(f"{what} changed the list of messages from {len(messages)} to {len(given)}")
        unchanged(what, before, *given, sampling)
        return _checked(what, replies, n)

    def _sampling(self) -> Sampling:
        return Sampling(temperature=1.0, top_p=1.0, max_tokens=self._max_tokens, seed=11)


def _conversation(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def _checked(what: str, replies: object, n: int) -> list[str]:
    """The texts of replies, all of which are checked."""
    if not isinstance(replies, list):
        raise ConformanceError(
            f"{what} returned a {type(replies).__name__}: {replies!r:.200}; return a list of Completion"
        )
    if not 1 <= len(replies) <= n:
        raise ConformanceError(f"{what} returned {len(replies)} replies; return 1..{n}, raise ModelError for none")
    for reply in replies:
        if not isinstance(reply, Completion):
            raise ConformanceError(f"{what} returned {reply!r:.200}; make it an insightv.Completion")
        try:
            Completion.model_validate(dict(reply) | {"usage": dict(reply.usage)}, strict=True)
        except (ValidationError, TypeError, ValueError) as error:
            raise ConformanceError(f"{what} returned a Completion that is none: {error}") from error
        if reply.usage.cached_tokens > reply.usage.prompt_tokens:
            raise ConformanceError(f"{what}: {reply.usage}: cached_tokens are a part of prompt_tokens")
    if replies[0].usage.requests < 1:
        raise ConformanceError(f"{what}: usage.requests is 0; count each try that was made, budgets go by it")
    if any(reply.usage != Usage() for reply in replies[1:]):
        raise ConformanceError(
            f"{what}: usage on reply 2..{len(replies)}; the first reply carries that of the whole request, the others "
            "Usage(), as they are added up"
        )
    return [reply.text for reply in replies]


def _check_structured(text: str) -> None:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConformanceError(f"chat() with a schema replied {text!r:.200}, which is not JSON: {error}") from error
    if not isinstance(found, dict) or set(found) != {"answer"} or not isinstance(found["answer"], str):
        raise ConformanceError(f'chat() with a schema replied {text!r:.200}; the schema asks for {{"answer": str}}')


async def _fails(model: ChatModel, limits: Limits) -> None:
    try:
        async with asyncio.timeout(limits.timeout_s):
            replies: Sequence[object] = await model.chat(_conversation("Say yes."), Sampling())
    except ModelError as error:
        if not error.code:
            raise ConformanceError("the broken backend raised a ModelError without a code; name the fault") from error
    except StopRun:
        pass
    except Exception as error:
        raise ConformanceError(
            f"the broken backend raised {type(error).__name__}: {error}; raise ModelError(code, text), or a StopRun "
            "where asking again is pointless"
        ) from error
    else:
        raise ConformanceError(f"the broken backend replied {replies!r:.200}; a failure is never a reply")
    finally:
        await model.aclose()
