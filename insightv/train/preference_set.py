"""Preference pairs as a set: assessed paths -> rows with a chosen and a rejected reply.

    export_set(PreferenceSet(prompt=lambda question: agent.messages(question)), assessed, "trl", folder, Origin())

`rows_of_pairs` makes the same rows of pairs that carry their own prompts, as a `PreferenceTrainer` is given them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from insightv.assessed import Assessed, AssessedPath
from insightv.errors import InputError, InsightvError
from insightv.records import Band, Message, PreferencePair, Question, ReasoningPath, Score
from insightv.train.funnel import Funnel
from insightv.train.general import Opener, as_it_is
from insightv.train.lengths import statistics
from insightv.train.pairs import PairRule, pick
from insightv.train.rows import NOT_GIVEN, Licence, Rejected, TrainingRow
from insightv.train.shown import from_json
from insightv.transcript import TAGS, Tags, to_text


@dataclass(frozen=True)
class PreferenceSet:
    """Pairs of paths by one policy, one better than the other: what DPO sharpens the reasoning agent on.

    `prompt` gives what the agent is shown of a question.
    """

    prompt: Callable[[Question], Sequence[Message]]
    rule: PairRule = field(default_factory=PairRule)
    open: Opener = as_it_is
    licence: Licence = NOT_GIVEN
    name: str = "preference"

    def settings(self) -> dict[str, object]:
        """What was chosen, for the card."""
        return self.rule.settings()

    def rows(self, assessed: Assessed, funnel: Funnel) -> Iterator[TrainingRow]:
        """The rows, question by question as they come. Reads the questions twice: once to choose, once to write."""
        picked = pick(assessed, self.rule)
        funnel.left_out += picked.left_out
        funnel.lengths |= statistics(picked.lengths)
        for number, item in enumerate(assessed()):
            funnel.read(item)
            name, pairs = picked.pairs.pop(number, (item.question.id, []))
            if name != item.question.id:
                break
            if not pairs:
                continue
            question = self.open(item.question)
            prompt, origin = tuple(self.prompt(question)), self.licence.of(question)
            for one in pairs:
                better, worse = item.paths[one.chosen], item.paths[one.rejected]
                rejected = Rejected(to_text(worse.path, self.rule.tags), worse, one.margin)
                text = to_text(better.path, self.rule.tags)
                yield TrainingRow(prompt, text, question, better, *origin, rejected=rejected)
        if picked.pairs:
            raise InsightvError(
                "the run changed while its preference set was written; write the set again when nothing writes the run"
            )


def rows_of_pairs(pairs: Iterable[PreferencePair], tags: Tags = TAGS) -> Iterator[TrainingRow]:
    """The rows of pairs whose `meta["prompt"]` says what the policy is shown.

    `meta["replies"]` ("chosen" and "rejected" as texts), where it is there, stands in place of the paths as text.

    Raises:
        InputError: a pair carries no prompt, its pictures are gone, or its two replies are equal.
    """
    for pair in pairs:
        if "prompt" not in pair.meta:
            raise InputError(
                f"the pair of question {pair.question_id!r} carries no prompt: select pairs with `shown`, or put the "
                'messages into meta["prompt"]'
            )
        replies = pair.meta.get("replies", {})
        better = replies.get("chosen") or to_text(pair.chosen, tags)
        worse = replies.get("rejected") or to_text(pair.rejected, tags)
        if better == worse:
            raise InputError(f"the pair of question {pair.question_id!r} has two equal replies: nothing to prefer")
        prompt = from_json(pair.meta["prompt"])
        pictures = tuple(part for message in prompt for part in message.parts if not isinstance(part, str))
        question = Question(id=pair.question_id, question="(in the prompt)", images=pictures)
        rejected = Rejected(worse, _assessed(pair, "rejected", pair.rejected), pair.margin)
        yield TrainingRow(prompt, better, question, _assessed(pair, "chosen", pair.chosen), rejected=rejected)


def _assessed(pair: PreferencePair, name: str, path: ReasoningPath) -> AssessedPath:
    """The path with what the pair's provenance says of its score and band."""
    value, band = pair.meta.get("scores", {}).get(name), pair.meta.get("bands", {}).get(name)
    scores = () if value is None else (Score(scorer="pair", value=value),)
    return AssessedPath(path, scores, Band(band) if band else None)
