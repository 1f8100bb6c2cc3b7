"""Preference pairs as a set: assessed paths -> rows with a chosen and a rejected reply.

    export_set(PreferenceSet(prompt=lambda question: agent.messages(question)), assessed, folder, Origin())

`rows_of_pairs` makes the same rows of pairs that carry their own prompts, as a `PreferenceTrainer` is given them. There
a prompt is JSON, messages whose pictures are files:

    [{"role": "user", "content": [{"type": "image", "path": "/.../ab12.png"}, {"type": "text", "text": "..."}]}]

The form is that of transformers' chat templates, so that a trainer of any make can read a pair's `meta["prompt"]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from insightv.agents.replies.transcript import TAGS, Tags, to_text
from insightv.assess.bands import Assessed, AssessedPath, AssessedQuestion
from insightv.errors import InputError, InsightvError
from insightv.inputs.images import ImageStore
from insightv.records import Band, Message, Picture, PreferencePair, Question, ReasoningPath, Score
from insightv.strict_json import Json
from insightv.train.data.card import Origin
from insightv.train.data.funnel import Funnel
from insightv.train.data.general import Opener, as_it_is
from insightv.train.data.length_balance import Lengths, statistics
from insightv.train.data.pairs import PairRule, pick
from insightv.train.data.rows import NOT_GIVEN, Licence, Rejected, TrainingRow, file_name


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
        family = {"family": pair.meta["family"]} if "family" in pair.meta else {}
        question = Question(id=pair.question_id, question="(in the prompt)", images=pictures, meta=family)
        rejected = Rejected(worse, _assessed(pair, "rejected", pair.rejected), pair.margin)
        source, licence = (str(pair.meta.get(name, "")) for name in ("source", "licence"))
        chosen = _assessed(pair, "chosen", pair.chosen)
        yield TrainingRow(prompt, better, question, chosen, source, licence, rejected=rejected)


def is_external(pairs: Sequence[PreferencePair]) -> bool:
    """Whether the replies are somebody else's texts, not paths that were assessed."""
    return bool(pairs) and all("replies" in pair.meta for pair in pairs)


def funnel_of_pairs(pairs: Sequence[PreferencePair]) -> Funnel:
    """The count of the questions and paths that are in pairs, and how long the better and the worse replies are."""
    funnel, found = Funnel(), dict[str, dict[int, AssessedPath]]()
    for pair in pairs:
        for name, path in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            found.setdefault(pair.question_id, {})[path.index] = _assessed(pair, name, path)
    for name, paths in found.items():
        funnel.read(AssessedQuestion(Question(id=name, question="(in the prompt)"), tuple(paths.values())))
    sizes = [pair.meta["characters"] for pair in pairs if "characters" in pair.meta]
    if len(sizes) == len(pairs):
        funnel.lengths |= statistics([Lengths(size["chosen"], size["rejected"]) for size in sizes])
    return funnel


def origin_of_pairs(pairs: Sequence[PreferencePair]) -> tuple[dict[str, object], Origin]:
    """The rule that pairs were chosen by, and the rest of what a card says of where they come from."""
    rules = [rule for pair in pairs if isinstance(rule := pair.meta.get("rule"), dict)]
    chosen = dict(rules[0]) if len(rules) == len(pairs) and all(rule == rules[0] for rule in rules) else {}
    models = sorted({pair.chosen.model for pair in pairs})
    systems = {text for pair in pairs if (text := _system(pair.meta.get("prompt"))) is not None}
    prompts = {
        f"reasoning agent: system{f' {number}' if number else ''}": hashlib.sha256(text.encode()).hexdigest()
        for number, text in enumerate(sorted(systems))
    }
    seed = chosen.get("seed")
    policy = {"policy": ", ".join(models[:5])} if models else {}
    return chosen, Origin(prompts=prompts, models=policy, seed=seed if isinstance(seed, int) else None)


def _system(prompt: object) -> str | None:
    first = prompt[0] if isinstance(prompt, list) and prompt else None
    if not isinstance(first, dict) or first.get("role") != "system":
        return None
    return "".join(str(block.get("text", "")) for block in first["content"])


def _assessed(pair: PreferencePair, name: str, path: ReasoningPath) -> AssessedPath:
    """The path with what the pair's provenance says of its score and band."""
    value, band = pair.meta.get("scores", {}).get(name), pair.meta.get("bands", {}).get(name)
    scores = () if value is None else (Score(scorer="pair", value=value),)
    return AssessedPath(path, scores, Band(band) if band else None)


def to_json(messages: Sequence[Message], store: ImageStore) -> list[Json]:
    """The messages, their pictures kept in `store` and named by their absolute paths."""
    for message in messages:
        for part in message.parts:
            if isinstance(part, Picture):
                store.put(part)
    folder = store.folder.absolute()
    return [{"role": m.role, "content": [_block(part, folder) for part in m.parts]} for m in messages]


def from_json(cells: object) -> tuple[Message, ...]:
    """The messages with their pictures read and checked.

    Raises:
        InputError: this is not what `to_json` writes, or a picture is missing or was changed.
    """
    if not isinstance(cells, Sequence) or isinstance(cells, str):
        raise InputError(f"a prompt is a list of messages, not {type(cells).__name__}; select pairs with `shown`")
    messages = []
    for cell in cells:
        try:
            parts = tuple(_part(block) for block in cell["content"])
            messages.append(Message(role=cell["role"], content=parts))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a message of a prompt cannot be read: {error!r}; select the pairs again") from error
    return tuple(messages)


def _block(part: str | Picture, folder: Path) -> Json:
    if isinstance(part, Picture):
        return {"type": "image", "path": str(folder / file_name(part))}
    return {"type": "text", "text": part}


def _part(block: dict[str, str]) -> str | Picture:
    if block["type"] == "text":
        return block["text"]
    path = Path(block["path"])
    return ImageStore(path.parent).get(path.stem)
