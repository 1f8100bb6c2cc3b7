"""The reasoning agent: the whole path in one reply, in the text format of `insightv.transcript`."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from insightv.agents.asking import Asker, GaveUp, Kept, calls_of, question_message, read_whole
from insightv.errors import ModelError
from insightv.interfaces import ChatModel, ReasoningAgent
from insightv.records import AskOptions, Completion, Message, Question, ReasoningPath, Step, Usage
from insightv.replies import Unreadable
from insightv.seeds import seed_of
from insightv.transcript import TAGS, Tags, check_tags, from_text

SYSTEM_PROMPT = """\
You are an expert at reasoning about images. Reason about the user's question step by step, at length, and write down \
the reasoning only; somebody else will answer the question with its help.

Write one block in exactly this form, with nothing before or after it:
<thoughts>
### A few words that name the step
The reasoning of this step in full sentences.
### A few words that name the next step
Its reasoning.
</thoughts>

How to reason:
- First describe what in the image bears on the question, then work with it. Ground every claim in what the image \
shows; where it is unclear, say so.
- One thought per step. Do calculations and counts in the open, item by item.
- You can be wrong: consider other readings of the image and other answers, and check the result again by a different \
approach.
- Take at least two steps, and as many as the question needs. The last step concludes.
"""


def with_tags(prompt: str, tags: Tags) -> str:
    """A built-in prompt with the tags in use."""
    return tags[1].join(part.replace(TAGS[0], tags[0]) for part in prompt.split(TAGS[1]))


def reasoning_messages(
    question: Question, *, system_prompt: str | None = None, tags: Tags = TAGS
) -> tuple[Message, Message]:
    """What the reasoning agent is shown of a question; its training rows begin with the same."""
    return _system(system_prompt, tags), question_message(question)


def _system(system_prompt: str | None, tags: Tags) -> Message:
    return Message(role="system", content=system_prompt or with_tags(SYSTEM_PROMPT, tags))


class ThoughtsReasoner(ReasoningAgent):
    """Reasons with a model that writes its path as text, such as a trained checkpoint.

    A path of it has no answer of its own. A path that is cut off ends as rejected (truncated) and keeps the steps that
    are whole, so that a summary agent may still use them. A stream has one try: what was shown cannot be taken back.

    Args:
        model: asked for the path.
        temperature: of the call; so are `top_p`, `max_tokens` and `extra`, which goes to the server as it is.
        top_p: see `temperature`.
        max_tokens: of the whole path.
        tries: calls for one path.
        tags: what opens and closes the block.
        system_prompt: in place of `SYSTEM_PROMPT`.
        extra: see `temperature`.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        temperature: float = 0.2,
        top_p: float = 0.95,
        max_tokens: int = 4096,
        tries: int = 3,
        tags: Tags = TAGS,
        system_prompt: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._asker = Asker(
            model, tries=tries, temperature=temperature, top_p=top_p, max_tokens=max_tokens, extra=extra
        )
        self.tags = check_tags(tags)
        self._system = _system(system_prompt, self.tags)

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts in use, by name; part of a run's identity."""
        return {"system": str(self._system.content)}

    def within(self, options: AskOptions) -> ThoughtsReasoner:
        """See `ReasoningAgent.within`; a step limit is the reasoner's to keep."""
        agent = copy.copy(self)
        agent._asker = self._asker.within(options)
        return agent

    async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
        """One path.

        Raises:
            ValueError: the question's images are not opened.
            StopRun: nothing more may be asked.
        """
        messages = (self._system, question_message(question))
        try:
            kept = await self._asker.ask(
                messages, self._read, lambda attempt: seed_of(seed, question.id, 0, 0, attempt)
            )
        except GaveUp as gave_up:
            return self._ended(question, seed, gave_up)
        return self._whole(question, seed, kept)

    async def stream_reason(self, question: Question, *, seed: int = 0) -> AsyncIterator[str | ReasoningPath]:
        """The reply's text in pieces as they come, tags included, then the path; one try."""
        messages = (self._system, question_message(question))
        reply = Completion(text="")
        try:
            async with aclosing(self._asker.stream(messages, seed_of(seed, question.id, 0, 0, 0))) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Completion):
                        reply = piece
                    else:
                        yield piece
        except ModelError as error:
            yield self._ended(question, seed, GaveUp("failed", error.code, str(error), error.usage))
            return
        try:
            yield self._whole(question, seed, Kept(read_whole(reply, self._read), reply, reply.usage))
        except Unreadable as error:
            yield self._ended(question, seed, GaveUp("rejected", error.code, str(error), reply.usage, reply))

    def _read(self, text: str) -> tuple[Step, ...]:
        steps, complete = from_text(text, self.tags)
        if not complete:
            raise Unreadable("no_end", f"the reply ends without {self.tags[1]}")
        return _stripped(steps)

    def _whole(self, question: Question, seed: int, kept: Kept[tuple[Step, ...]]) -> ReasoningPath:
        return self._path(question, seed, kept.usage, status="ok", steps=kept.value, calls=calls_of(kept.completion))

    def _ended(self, question: Question, seed: int, gave_up: GaveUp) -> ReasoningPath:
        steps: tuple[Step, ...] = ()
        if gave_up.path_code == "truncated" and gave_up.last is not None:
            steps = self._whole_steps(gave_up.last.text)
        calls = calls_of(gave_up.last) if steps and gave_up.last is not None else ()
        return self._path(
            question,
            seed,
            gave_up.usage,
            status=gave_up.status,
            code=gave_up.path_code,
            detail=gave_up.detail,
            steps=steps,
            calls=calls,
        )

    def _whole_steps(self, text: str) -> tuple[Step, ...]:
        """The steps of a cut reply that are certainly whole; none where it cannot be read."""
        try:
            steps, _ = from_text(text, self.tags)
        except Unreadable:
            return ()
        return _stripped(steps)

    def _path(self, question: Question, seed: int, usage: Usage, **rest: Any) -> ReasoningPath:
        return ReasoningPath(
            question_id=question.id, index=0, model=self._asker.model.name, seed=seed, usage=usage, **rest
        )


def _stripped(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple(Step(title=step.title.strip(), content=step.content.strip(), action=step.action) for step in steps)
