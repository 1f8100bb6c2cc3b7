"""One model alone, which reasons and answers: in one reply (direct CoT) or in two turns. The paper's baselines.

Both are reasoning agents whose path comes with its answer; `insightv.train.data.baseline_sets` makes the rows that
train them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar, Self

from insightv.agents.adapters import unanswered
from insightv.agents.path_codes import question_message
from insightv.agents.reasoning import BLOCK, HOW_TO_REASON, ThoughtsReasoner, Written, stripped, with_tags
from insightv.agents.replies.ask import Asker, GaveUp, asker_of, calls_of, kept_within
from insightv.agents.replies.transcript import TAGS, Tags, read_answered
from insightv.agents.summary import answer_to
from insightv.errors import ModelError
from insightv.interfaces import ChatModel, SummaryAgent
from insightv.records import Answer, AskOptions, Message, Question, ReasoningPath, seed_of

_ANSWER_FORM = """\
in the form that the question asks for; if it names none, as a word, a number or a short phrase, and as the letter \
alone where choices are lettered."""

DIRECT_COT_PROMPT = f"""\
You are an expert at reasoning about images. Reason about the user's question step by step, at length, then answer it.

First write one block in exactly this form, with nothing before it:
{BLOCK}
Below the block write the answer alone, {_ANSWER_FORM}

{HOW_TO_REASON}"""

MULTI_TURN_PROMPT = f"""\
You are an expert at reasoning about images. Reason about the user's question step by step, at length, and write down \
the reasoning only; you will be asked for the answer afterwards.

Write one block in exactly this form, with nothing before or after it:
{BLOCK}
{HOW_TO_REASON}"""

ANSWER_PROMPT = f"""\
Now answer the question from your reasoning. Reply with the answer alone, {_ANSWER_FORM}
"""


def direct_cot_messages(
    question: Question, *, system_prompt: str | None = None, tags: Tags = TAGS
) -> tuple[Message, Message]:
    """What a model that reasons and answers in one reply is shown; its training rows begin with the same."""
    return _opening(question, system_prompt or with_tags(DIRECT_COT_PROMPT, tags), tags)


def multi_turn_messages(
    question: Question, *, system_prompt: str | None = None, tags: Tags = TAGS
) -> tuple[Message, Message]:
    """What a model is shown for the first of two turns; its training rows begin with the same."""
    return _opening(question, system_prompt or with_tags(MULTI_TURN_PROMPT, tags), tags)


def answer_turn(opening: Sequence[Message], reply: str) -> tuple[Message, ...]:
    """The conversation that asks for the answer: the first turn, its reply byte for byte, and `ANSWER_PROMPT`."""
    said = Message(role="assistant", content=reply)
    return (*opening, said, Message(role="user", content=ANSWER_PROMPT))


def _opening(question: Question, system: str, tags: Tags) -> tuple[Message, Message]:
    return Message(role="system", content=system), question_message(question, tags)


@dataclass(eq=False, repr=False)
class DirectCot(ThoughtsReasoner):
    """Reasons and answers in one reply: the block of the text format, and below it the answer.

    Its path has that answer. A reply whose answer was cut off or is missing is no answer at all.
    """

    default_prompt: ClassVar[str] = DIRECT_COT_PROMPT

    def _read(self, text: str) -> Written:
        steps, answer = read_answered(self._spoken(text), self.tags)
        return stripped(steps), answer


@dataclass(eq=False, repr=False)
class MultiTurn(ThoughtsReasoner):
    """Reasons in a first turn, and is asked for the answer in a second one of the same conversation.

    Its path has that answer, and comes as a whole. A path that was cut off or rejected leads to no second turn.
    """

    default_prompt: ClassVar[str] = MULTI_TURN_PROMPT

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts in use, by name; part of a run's identity."""
        return {**super().prompts, "answer": ANSWER_PROMPT}

    async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
        """One path with its answer; raises as `ThoughtsReasoner.reason`."""
        opening, seed_at = self.messages(question), partial(seed_of, seed, question.id, 0)
        try:
            kept = await self._asker.ask(opening, self._read, partial(seed_at, 0))
        except GaveUp as gave_up:
            return self._ended(question, seed, gave_up)
        path = self._whole(question, seed, kept.value, kept.completion, kept.usage)
        try:
            said = await answer_to(
                self._asker, "model", answer_turn(opening, kept.completion.text), partial(seed_at, "answer")
            )
        except ModelError as error:
            return unanswered(path, error)
        calls = calls_of(kept.completion, said.completion)
        return path.model_copy(update={"answer": said.value, "usage": path.usage + said.usage, "calls": calls})


SYSTEM_PROMPT = """\
You answer questions about images. Look at the image and reply with the answer alone, in the form that the question \
asks for; if it names none, with a word, a number or a short phrase, and with the letter alone where choices are \
lettered.
"""


@dataclass(eq=False, repr=False)
class DirectAnswer(SummaryAgent):
    """Answers from the image alone; a path is never shown to its model. Options: also those of `Asker`.

    Args:
        system_prompt: in place of `SYSTEM_PROMPT`.
    """

    model: ChatModel
    _: KW_ONLY
    temperature: float = 0.2
    top_p: float = 0.95
    max_tokens: int = 1024
    tries: int = 3
    extra: Mapping[str, Any] | None = None
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        asker_of(self)  # its options are checked now, not at the first question

    @property
    def _asker(self) -> Asker:
        return asker_of(self)

    def within(self, options: AskOptions) -> Self:
        """See `SummaryAgent.within`."""
        return kept_within(self, options)

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts in use, by name; part of a run's identity."""
        return {"system": self.system_prompt or SYSTEM_PROMPT}

    async def summarize(self, question: Question, path: ReasoningPath) -> Answer:
        """The answer; of the path only its seed is used.

        Raises:
            ModelError: not answered; refusal, truncated, empty, cut or bad_characters where the replies were unusable.
            ValueError: the question's images are not opened.
            StopRun: nothing more may be asked.
        """
        messages = (Message(role="system", content=self.prompts["system"]), question_message(question))
        seed_at = partial(seed_of, path.seed, question.id, path.index, "direct")
        kept = await answer_to(self._asker, "model", messages, seed_at)
        return Answer(text=kept.value, usage=kept.usage)
