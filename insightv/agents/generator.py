"""Progressive generation of paths: one JSON step at a time, N paths per question, then the final answer.

The loop is the paper's (section on data generation) with its actions `continue` and `summary`. Each call of a chain
begins with the messages of the call before it; a kept reply goes back byte for byte. Failed tries never enter a chain,
and where a chain cannot continue its path ends with a code (`path_codes.RejectedCode`) and the steps it has.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from insightv.agents.path_codes import path_code, question_message
from insightv.agents.repetition import Said
from insightv.agents.replies.ask import Asker, GaveUp, Kept, calls_of, check_count
from insightv.agents.replies.json_reply import read_object
from insightv.agents.replies.reading import Reading, Unreadable
from insightv.agents.step_schema import FINAL_SCHEMA, STEP_SCHEMA, answer_of, flags_of, step_of
from insightv.concurrency import all_of
from insightv.errors import ConfigError, ModelError
from insightv.interfaces import ChatModel, Generator
from insightv.records import AskOptions, Completion, Message, Question, ReasoningPath, Step, Usage, seed_of

SYSTEM_PROMPT = """\
You are an expert at reasoning about images. You work on the user's question step by step and write exactly one step \
per reply.

A step is one JSON object with exactly three keys and nothing around it:
"title": a few words that name the step;
"content": the reasoning of this step in full sentences;
"action": "continue" if more reasoning is needed, "summary" if this step concludes the reasoning.

How to reason:
- Look before you conclude. First describe what in the image bears on the question, then work with it.
- Ground every claim in what the image shows: name the object, label, colour, position or number you rely on. Where \
the image is unclear, say so.
- One thought per step. Do calculations and counts in the open, item by item.
- You can be wrong. Consider other readings of the image and other answers, and say why they do or do not hold.
- Before you conclude, check the result again by a different approach, for example by counting in another order or \
working backwards from the answer.
- Take at least two steps, and as many as the question needs. Do not repeat a step.
- In JSON a backslash is written twice: "\\\\frac{1}{2}", not "\\frac{1}{2}".

Example of one reply:
{"title": "Read the two bars", "content": "The blue bar above 'May' ends at the grid line for 40, the orange bar above \
'June' half way between 20 and 30, so at about 25.", "action": "continue"}
"""

NEXT_PROMPT = """\
Write the next step: one JSON object with the keys "title", "content" and "action", as before. It must add something \
that the steps so far do not have: a further observation, a further deduction, or a check by a different approach. Do \
not state the final answer separately yet. If nothing new is left to add, conclude in this step and set "action" to \
"summary".
"""

FINAL_PROMPT = """\
Now give the final answer, from the reasoning above alone. Keep to the form that the question asks for; if it names \
none, answer with a word, a number or a short phrase, and with the letter alone where choices are lettered. Reply with \
one JSON object with exactly one key, for example:
{"answer": "15"}
"""

_ReadStep = tuple[Step, tuple[str, ...]]


@dataclass
class _Chain:
    """One path as it grows."""

    index: int
    seed: int
    messages: list[Message]
    steps: list[Step] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    replies: list[Completion] = field(default_factory=list)
    flags: dict[str, None] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)

    def keep(self, kept: Kept[Any], flags: Sequence[str]) -> None:
        self.usage += kept.usage
        self.replies.append(kept.completion)
        self.flags.update(dict.fromkeys(flags))


class ProgressiveGenerator(Generator):
    """Writes paths step by step with a vision-language model.

    Args:
        model: asked for each step.
        max_steps: calls for steps per path at most, the paper's 16; the final answer is one more.
        min_steps: a summary before this many steps is asked for again (None: 2, or `max_steps` if that is less).
        temperature: of all calls; so are `top_p`, `max_tokens` and `extra`, which goes to the server as it is.
        top_p: see `temperature`.
        max_tokens: of one reply.
        tries: calls with the same messages for one reply.
        first_step: "together" draws the first step of all paths in one request, "apart" lets the first path take its
            first step before the others begin (for servers with a prefix cache and without `n`).
        system_prompt: in place of `SYSTEM_PROMPT`; so are `next_prompt` and `final_prompt` in place of theirs.
        next_prompt: asks for each further step.
        final_prompt: asks for the final answer.
        extra: see `temperature`.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        max_steps: int = 16,
        min_steps: int | None = None,
        temperature: float = 0.7,
        top_p: float = 0.95,
        max_tokens: int = 1024,
        tries: int = 3,
        first_step: Literal["together", "apart"] = "together",
        system_prompt: str | None = None,
        next_prompt: str | None = None,
        final_prompt: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        check_count("max_steps", max_steps, "the most steps of a path")
        min_steps = min(2, max_steps) if min_steps is None else min_steps
        check_count("min_steps", min_steps, "the least steps of a path")
        if min_steps > max_steps:
            raise ConfigError(f"min_steps = {min_steps} is above max_steps = {max_steps}; lower it or raise that")
        if first_step not in ("together", "apart"):
            raise ConfigError(f'first_step = {first_step!r}: it is "together" or "apart"')
        self._asker = Asker(
            model, tries=tries, temperature=temperature, top_p=top_p, max_tokens=max_tokens, extra=extra
        )
        self._max_steps = max_steps
        self._min_steps = min_steps
        self._most_tokens: int | None = None
        self._together = first_step == "together"
        self._system = Message(role="system", content=system_prompt or SYSTEM_PROMPT)
        self._next = Message(role="user", content=next_prompt or NEXT_PROMPT)
        self._final = Message(role="user", content=final_prompt or FINAL_PROMPT)

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts in use, by name; part of a run's identity."""
        named = {"system": self._system, "next": self._next, "final": self._final}
        return {name: str(message.content) for name, message in named.items()}

    async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
        """`n` paths; those whose calls or replies did not work out are failed or rejected, with what they have.

        Raises:
            ValueError: the question's images are not opened.
            StopRun: nothing more may be asked; the calls of the other paths are cancelled.
        """
        opening = [self._system, question_message(question)]
        chains = [_Chain(i, seed_of(seed, question.id, i), list(opening)) for i in range(n)]
        if not chains:
            return []

        def seed_at(chain: _Chain, step: int) -> Callable[[int], int]:
            return lambda attempt: seed_of(seed, question.id, chain.index, step, attempt)

        firsts: list[Completion | None] = [None] * n
        if self._together and n > 1:
            try:
                drawn = await self._asker.model.chat(
                    tuple(opening), self._asker.sampling(seed_at(chains[0], 0)(0)), n=n, schema=STEP_SCHEMA
                )
            except ModelError as error:
                gave_up = GaveUp("failed", error.code, str(error), error.usage)
                unpaid = GaveUp("failed", error.code, str(error), Usage())
                return [self._ended(question, chain, unpaid if chain.index else gave_up) for chain in chains]
            firsts[: len(drawn)] = drawn[:n]
        led = asyncio.Event()
        if self._together:
            led.set()

        async def walk(chain: _Chain) -> ReasoningPath:
            if chain.index:
                await led.wait()
            try:
                return await self._whole(question, chain, lambda step: seed_at(chain, step), firsts[chain.index], led)
            finally:
                led.set()

        return await all_of([walk(chain) for chain in chains])

    async def stream(self, question: Question, *, seed: int = 0) -> AsyncIterator[Step | ReasoningPath]:
        """The steps of one path as they are kept, then the path, the same as `generate` makes it; raises as it does."""
        chain = _Chain(0, seed_of(seed, question.id, 0), [self._system, question_message(question)])
        parts = self._parts(question, chain, lambda step: lambda attempt: seed_of(seed, question.id, 0, step, attempt))
        async with aclosing(parts):
            async for part in parts:
                yield part

    def within(self, options: AskOptions) -> ProgressiveGenerator:
        """See `Generator.within`; a path that has used up its tokens ends as rejected (truncated)."""
        kept = copy.copy(self)
        kept._asker = self._asker.within(options)
        kept._max_steps = min(self._max_steps, options.max_steps or self._max_steps)
        kept._min_steps = min(self._min_steps, kept._max_steps)
        kept._most_tokens = options.max_tokens
        return kept

    async def _whole(self, question: Question, *walk: Any) -> ReasoningPath:
        async with aclosing(self._parts(question, *walk)) as parts:
            *_, path = [part async for part in parts if isinstance(part, ReasoningPath)]
        return path

    async def _parts(self, question: Question, chain: _Chain, *walk: Any) -> AsyncGenerator[Step | ReasoningPath, None]:
        """The steps of a chain as they are kept, then its path."""
        answer = ""
        try:
            async with aclosing(self._walk(chain, *walk)) as parts:
                async for part in parts:
                    if isinstance(part, Step):
                        yield part
                    else:
                        answer = part
        except GaveUp as gave_up:
            yield self._ended(question, chain, gave_up)
        else:
            yield self._path(question, chain, status="ok", answer=answer)

    async def _walk(
        self,
        chain: _Chain,
        seeds: Callable[[int], Callable[[int], int]],
        first: Completion | None = None,
        led: asyncio.Event | None = None,
    ) -> AsyncGenerator[Step | str, None]:
        """The chain's steps to its summary, then its answer."""
        for number in range(self._max_steps):
            if number:
                chain.messages.append(self._next)
            kept = await self._asker.ask(
                chain.messages, self._reader(number), seeds(number), schema=STEP_SCHEMA, first=None if number else first
            )
            if led is not None:
                led.set()
            step, flags = kept.value
            chain.keep(kept, flags)
            said = Said(step.content)
            if any(said.again(earlier) for earlier in chain.said):
                chain.replies.pop()
                raise GaveUp("rejected", "repetition", f"step {number + 1} says an earlier step again", Usage())
            chain.steps.append(step)
            chain.said.append(said)
            chain.messages.append(Message(role="assistant", content=kept.completion.text))
            yield step
            if self._most_tokens is not None and chain.usage.completion_tokens >= self._most_tokens:
                raise GaveUp("rejected", "truncated", f"the path has used its {self._most_tokens} tokens", Usage())
            if step.action == "summary":
                break
        else:
            raise GaveUp("rejected", "max_steps", f"no summary within {self._max_steps} steps", Usage())
        chain.messages.append(self._final)
        final = await self._asker.ask(chain.messages, _read_final, seeds(len(chain.steps)), schema=FINAL_SCHEMA)
        answer, flags = final.value
        chain.keep(final, flags)
        yield answer

    def _reader(self, number: int) -> Callable[[str], _ReadStep]:
        def read(text: str) -> _ReadStep:
            reading = read_object(text)
            step = step_of(reading)
            if step.action == "summary" and number + 1 < self._min_steps:
                raise Unreadable("too_short", f"a summary at step {number + 1}; at least {self._min_steps} are wanted")
            return step, flags_of(reading)

        return read

    def _ended(self, question: Question, chain: _Chain, gave_up: GaveUp) -> ReasoningPath:
        chain.usage += gave_up.usage
        return self._path(
            question, chain, status=gave_up.status, code=path_code(gave_up), detail=gave_up.detail, answer=None
        )

    def _path(self, question: Question, chain: _Chain, **ending: Any) -> ReasoningPath:
        return ReasoningPath(
            question_id=question.id,
            index=chain.index,
            steps=tuple(chain.steps),
            model=self._asker.model.name,
            seed=chain.seed,
            usage=chain.usage,
            flags=tuple(chain.flags),
            calls=calls_of(*chain.replies),
            **ending,
        )


def _read_final(text: str) -> tuple[str, tuple[str, ...]]:
    reading: Reading = read_object(text)
    return answer_of(reading), flags_of(reading)
