"""One model asked directly: the base model before any of this."""

from __future__ import annotations

from dataclasses import dataclass

from insightv.agents.asking import question_message
from insightv.agents.summary import answer_to
from insightv.asking import Asker
from insightv.interfaces import SummaryAgent
from insightv.records import Answer, Message, Question, ReasoningPath
from insightv.seeds import seed_of

SYSTEM_PROMPT = """\
You answer questions about images. Look at the image and reply with the answer alone, in the form that the question \
asks for; if it names none, with a word, a number or a short phrase, and with the letter alone where choices are \
lettered.
"""


@dataclass(eq=False, repr=False, kw_only=True)
class DirectAnswer(Asker, SummaryAgent):
    """Answers from the image alone; a path is never shown to its model. Options: also those of `Asker`.

    Args:
        system_prompt: in place of `SYSTEM_PROMPT`.
    """

    system_prompt: str | None = None

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
        kept = await answer_to(
            self, "model", messages, lambda attempt: seed_of(path.seed, question.id, path.index, "direct", attempt)
        )
        return Answer(text=kept.value, usage=kept.usage)
