"""The reasoning agent: the whole path in one reply, in the text format of `insightv.agents.replies.transcript`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

from insightv.agents.path_codes import path_code, question_message
from insightv.agents.replies.ask import Asker, GaveUp, asker_of, calls_of, kept_within, read_whole
from insightv.agents.replies.reading import Unreadable
from insightv.agents.replies.thoughts import THOUGHTS_END, after_thoughts
from insightv.agents.replies.transcript import TAGS, Tags, check_tags, from_text
from insightv.errors import ModelError
from insightv.interfaces import ChatModel, ReasoningAgent
from insightv.records import AskOptions, Completion, Message, Question, ReasoningPath, Step, Usage, seed_of

BLOCK = """\
<thoughts>
### A few words that name the step
The reasoning of this step in full sentences.
### A few words that name the next step
Its reasoning.
</thoughts>
"""
"""What a path looks like, for prompts."""

HOW_TO_REASON = """\
How to reason:
- First describe what in the image bears on the question, then work with it. Ground every claim in what the image \
shows; where it is unclear, say so.
- One thought per step. Do calculations and counts in the open, item by item.
- You can be wrong: consider other readings of the image and other answers, and check the result again by a different \
approach.
- Take at least two steps, and as many as the question needs. The last step concludes.
"""

SYSTEM_PROMPT = f"""\
You are an expert at reasoning about images. Reason about the user's question step by step, at length, and write down \
the reasoning only; somebody else will answer the question with its help.

Write one block in exactly this form, with nothing before or after it:
{BLOCK}
{HOW_TO_REASON}"""


def with_tags(prompt: str, tags: Tags) -> str:
    """A built-in prompt with the tags in use."""
    return tags[1].join(part.replace(TAGS[0], tags[0]) for part in prompt.split(TAGS[1]))


def reasoning_messages(
    question: Question, *, system_prompt: str | None = None, tags: Tags = TAGS
) -> tuple[Message, Message]:
    """What the reasoning agent is shown of a question; its training rows begin with the same."""
    system = system_prompt or with_tags(SYSTEM_PROMPT, tags)
    return Message(role="system", content=system), question_message(question, tags)


Written = tuple[tuple[Step, ...], str | None]
"""What a reply holds: the steps, and the answer where the model gives one with them."""


@dataclass(eq=False, repr=False)
class ThoughtsReasoner(ReasoningAgent):
    """Reasons with a model that writes its path as text, such as a trained checkpoint. Options: also those of `Asker`.

    A path of it has no answer of its own. A path that is cut off ends as rejected (truncated) and keeps the steps that
    are whole, so that a summary agent may still use them. A stream has one try: what was shown cannot be taken back.

    Args:
        tags: what opens and closes the block.
        system_prompt: in place of the built-in prompt.
    """

    model: ChatModel
    _: KW_ONLY
    temperature: float = 0.2
    top_p: float = 0.95
    max_tokens: int = 4096
    tries: int = 3
    extra: Mapping[str, Any] | None = None
    tags: Tags = TAGS
    system_prompt: str | None = None
    default_prompt: ClassVar[str] = SYSTEM_PROMPT

    def __post_init__(self) -> None:
        asker_of(self)  # its options are checked now, not at the first question
        self.tags = check_tags(self.tags)

    @property
    def _asker(self) -> Asker:
        return asker_of(self)

    def within(self, options: AskOptions) -> Self:
        """See `ReasoningAgent.within`."""
        return kept_within(self, options)

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts in use, by name; part of a run's identity."""
        return {"system": self.system_prompt or with_tags(self.default_prompt, self.tags)}

    def messages(self, question: Question) -> tuple[Message, ...]:
        """What the model is shown of a question.

        Raises:
            ValueError: the question's images are not opened.
        """
        return Message(role="system", content=self.prompts["system"]), question_message(question, self.tags)

    async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
        """One path.

        Raises:
            ValueError: the question's images are not opened.
            StopRun: nothing more may be asked.
        """
        try:
            kept = await self._asker.ask(
                self.messages(question), self._read, lambda attempt: seed_of(seed, question.id, 0, 0, attempt)
            )
        except GaveUp as gave_up:
            return self._ended(question, seed, gave_up)
        return self._whole(question, seed, kept.value, kept.completion, kept.usage)

    async def stream_reason(self, question: Question, *, seed: int = 0) -> AsyncIterator[str | ReasoningPath]:
        """The reply's text in pieces as they come, tags included, then the path; one try."""
        reply = Completion(text="")
        try:
            seed_here = seed_of(seed, question.id, 0, 0, 0)
            stream = self._asker.stream(self.messages(question), seed_here, thoughts=self._thinks_in_block)
            async with aclosing(stream) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Completion):
                        reply = piece
                    else:
                        yield piece
        except ModelError as error:
            yield self._ended(question, seed, GaveUp("failed", error.code, str(error), error.usage))
            return
        try:
            yield self._whole(question, seed, read_whole(reply, self._read), reply, reply.usage)
        except Unreadable as error:
            yield self._ended(question, seed, GaveUp("rejected", error.code, str(error), reply.usage, (reply,)))

    def _read(self, text: str) -> Written:
        steps, complete = from_text(self._spoken(text), self.tags)
        if not complete:
            raise Unreadable("no_end", f"the reply ends without {self.tags[1]}")
        return stripped(steps), None

    @property
    def _thinks_in_block(self) -> bool:
        return THOUGHTS_END in self.tags

    def _spoken(self, text: str) -> str:
        """The reply without thoughts before it, unless they are its block."""
        return text if self._thinks_in_block else after_thoughts(text.lstrip(), (self.tags[0],))

    def _whole(self, question: Question, seed: int, written: Written, reply: Completion, usage: Usage) -> ReasoningPath:
        steps, answer = written
        return self._path(question, seed, usage, status="ok", steps=steps, answer=answer, calls=calls_of(reply))

    def _ended(self, question: Question, seed: int, gave_up: GaveUp) -> ReasoningPath:
        code, last = path_code(gave_up), gave_up.last
        steps = self._whole_steps(last.text) if code == "truncated" and last is not None else ()
        calls = calls_of(last) if steps and last is not None else ()
        ended: dict[str, Any] = {"status": gave_up.status, "code": code, "detail": gave_up.detail}
        return self._path(question, seed, gave_up.usage, steps=steps, calls=calls, **ended)

    def _whole_steps(self, text: str) -> tuple[Step, ...]:
        """The steps of a cut reply that are certainly whole; none where it cannot be read."""
        try:
            steps, _ = from_text(self._spoken(text), self.tags)
        except Unreadable:
            return ()
        return stripped(steps)

    def _path(self, question: Question, seed: int, usage: Usage, **rest: Any) -> ReasoningPath:
        return ReasoningPath(question_id=question.id, index=0, model=self.model.name, seed=seed, usage=usage, **rest)


def stripped(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps without white space around their texts."""
    return tuple(Step(title=step.title.strip(), content=step.content.strip(), action=step.action) for step in steps)
