"""One model asked directly: the plain baseline, and the base model before any of this."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from insightv.agents.asking import Asker, GaveUp, question_message
from insightv.agents.summary import read_answer
from insightv.errors import ModelError
from insightv.interfaces import ChatModel, SummaryAgent
from insightv.records import Answer, AskOptions, Message, Question, ReasoningPath
from insightv.seeds import seed_of

SYSTEM_PROMPT = """\
You answer questions about images. Look at the image and reply with the answer alone, in the form that the question \
asks for; if it names none, with a word, a number or a short phrase, and with the letter alone where choices are \
lettered.
"""


class DirectAnswer(SummaryAgent):
    """Answers from the image alone; a path is never shown to its model.

    Args:
        model: asked for the answer.
        temperature: of the call; so are `top_p`, `max_tokens` and `extra`, which goes to the server as it is.
        top_p: see `temperature`.
        max_tokens: of the answer.
        tries: calls for one answer.
        system_prompt: in place of `SYSTEM_PROMPT`.
        extra: see `temperature`.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        temperature: float = 0.2,
        top_p: float = 0.95,
        max_tokens: int = 1024,
        tries: int = 3,
        system_prompt: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._asker = Asker(
            model, tries=tries, temperature=temperature, top_p=top_p, max_tokens=max_tokens, extra=extra
        )
        self._system = Message(role="system", content=system_prompt or SYSTEM_PROMPT)

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts in use, by name; part of a run's identity."""
        return {"system": str(self._system.content)}

    def within(self, options: AskOptions) -> DirectAnswer:
        """See `SummaryAgent.within`."""
        agent = copy.copy(self)
        agent._asker = self._asker.within(options)
        return agent

    async def summarize(self, question: Question, path: ReasoningPath) -> Answer:
        """The answer; of the path only its seed is used.

        Raises:
            ModelError: not answered; refusal, truncated, empty or bad_characters where the replies were unusable.
            ValueError: the question's images are not opened.
            StopRun: nothing more may be asked.
        """
        messages = (self._system, question_message(question))
        try:
            kept = await self._asker.ask(
                messages, read_answer, lambda attempt: seed_of(path.seed, question.id, path.index, "direct", attempt)
            )
        except GaveUp as gave_up:
            last = gave_up.last.text if gave_up.last is not None else ""
            text = f"the model gave no answer: {gave_up.detail}"
            raise ModelError(gave_up.code, text, usage=gave_up.usage, kept=last[:2000]) from gave_up
        return Answer(text=kept.value, usage=kept.usage)
