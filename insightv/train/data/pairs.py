"""Assessed paths -> preference pairs: two paths of one question by one policy, of which one is better.

    selected = select_pairs(assessed, PairRule(margin=20, per_question=2))
    selected.pairs, selected.lengths, selected.left_out

The chosen path is right and of the high band; the rejected one is wrong, or right but lower by at least the margin.
The paper says only that pairs come from generating, scoring and ranking (section 3): every choice here is a setting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from insightv.agents.replies.transcript import TAGS, Tags, check_tags
from insightv.assess.bands import Assessed, AssessedPath, AssessedQuestion
from insightv.errors import ConfigError
from insightv.records import Band, PreferencePair, Question, seed_of
from insightv.strict_json import Json
from insightv.train.data.funnel import band_of
from insightv.train.data.length_balance import Balance, Lengths, statistics, to_drop
from insightv.train.data.rows import NOT_GIVEN, Licence
from insightv.train.data.sets import NO_TEXT, text_of, unusable

WRONG_POINTS = 0.0
"""What a wrong path counts as, whatever a scorer said of its steps: just below the scale of 1..100."""


@dataclass(frozen=True)
class PairRule:
    """Which pairs are made.

    `margin` is the least difference in points of score, and `per_question` the most pairs of a question. `policy`
    names the model whose paths are paired (None: each model's own; paths of two models never meet). `length_slack` is
    the share by which pairs with the longer reply chosen may outnumber the others, or fall behind them, beyond one
    half (None: lengths are not looked at); pairs beyond are dropped. `tags` enclose a reply.
    """

    margin: float = 20.0
    per_question: int = 2
    length_slack: float | None = 0.02
    seed: int = 0
    policy: str | None = None
    tags: Tags = TAGS

    def __post_init__(self) -> None:
        if not 0 < self.margin <= 100:
            raise ConfigError(f"margin = {self.margin} must be above 0 and at most 100 points")
        if self.per_question < 1:
            raise ConfigError(f"per_question = {self.per_question} must be at least 1")
        if self.length_slack is not None and not 0 <= self.length_slack <= 0.5:
            raise ConfigError(f"length_slack = {self.length_slack} must be from 0 to 0.5, or left out")
        check_tags(self.tags)

    def settings(self) -> dict[str, object]:
        """The rule as it is recorded."""
        return asdict(self) | {"tags": list(self.tags)}


class Candidate(NamedTuple):
    """A pair that could be made: positions in the question's paths, and what the choice depends on."""

    chosen: int
    rejected: int
    margin: float
    lengths: Lengths
    lot: int


@dataclass(slots=True)
class Picked:
    """The pairs of a run as positions: `pairs` by the number of the question, with its id."""

    pairs: dict[int, tuple[str, list[Candidate]]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    dropped_for_length: int = 0

    @property
    def lengths(self) -> list[Lengths]:
        """The lengths of all pairs, in order."""
        return [pair.lengths for _, pairs in self.pairs.values() for pair in pairs]


@dataclass(frozen=True)
class SelectedPairs:
    """Pairs of a run, how long their replies are, and why the other paths are in none."""

    pairs: list[PreferencePair]
    lengths: dict[str, object]
    left_out: Counter[str]


Shown = Callable[[Question], list[Json]]
"""Gives what a policy is shown of a question, in the form of `insightv.train.data.pair_rows`."""


def select_pairs(
    assessed: Assessed, rule: PairRule | None = None, shown: Shown | None = None, licence: Licence = NOT_GIVEN
) -> SelectedPairs:
    """The pairs of a run, question by question as they come; reads it twice.

    `shown`, the rule, and where a question comes from go into each pair's `meta`.
    """
    rule = rule or PairRule()
    picked = pick(assessed, rule)
    pairs: list[PreferencePair] = []
    for number, item in enumerate(assessed()):
        if number in picked.pairs:
            prompt = shown(item.question) if shown else None
            source, terms = licence.of(item.question)
            told = {"source": source, "licence": terms, "family": item.question.meta.get("family")}
            meta = {name: value for name, value in told.items() if value} | {"rule": rule.settings()}
            made = [pair_of(item, one, prompt) for one in picked.pairs[number][1]]
            pairs += [pair.model_copy(update={"meta": {**pair.meta, **meta}}) for pair in made]
    lengths = statistics(picked.lengths) | {"pairs_dropped": picked.dropped_for_length}
    return SelectedPairs(pairs, lengths, picked.left_out)


def pick(assessed: Assessed, rule: PairRule) -> Picked:
    """The pairs of a run as positions, those dropped that would let length tell chosen from rejected."""
    picked, balance, usable = Picked(), Balance(), 0
    for number, item in enumerate(assessed()):
        found, left_out = candidates(item, rule)
        picked.left_out += left_out
        usable += len(item.paths) - left_out.total()
        if taken := _take(found, rule, balance):
            picked.pairs[number] = (item.question.id, taken)
    if rule.length_slack is not None:
        before = len(picked.lengths)
        _trim(picked, rule.length_slack)
        if dropped := before - len(picked.lengths):
            picked.dropped_for_length = dropped
    used = sum(len({place for one in pairs for place in one[:2]}) for _, pairs in picked.pairs.values())
    if usable > used:
        picked.left_out["in no pair"] = usable - used
    return picked


def candidates(item: AssessedQuestion, rule: PairRule) -> tuple[list[Candidate], Counter[str]]:
    """All pairs that the rule allows of a question, and why paths cannot be in any."""
    texts: dict[int, str] = {}
    left_out: Counter[str] = Counter()
    for place, path in enumerate(item.paths):
        other = rule.policy is not None and path.path.model != rule.policy
        if reason := unusable(path) or ("of another policy" if other else None):
            left_out[reason] += 1
        elif (text := text_of(path.path, rule.tags)) is None:
            left_out[NO_TEXT] += 1
        else:
            texts[place] = text
    found: list[Candidate] = []
    for better in texts:
        for worse in texts:
            margin = _margin(item.paths[better], item.paths[worse])
            # Trainers refuse two equal replies, and white space alone is nothing to learn.
            if margin is not None and margin >= rule.margin and _bare(texts[better]) != _bare(texts[worse]):
                lot = seed_of(rule.seed, "pair", item.question.id, better, worse)
                found.append(Candidate(better, worse, margin, Lengths(len(texts[better]), len(texts[worse])), lot))
    return found, left_out


def pair_of(item: AssessedQuestion, one: Candidate, prompt: list[Json] | None = None) -> PreferencePair:
    """The pair with its provenance: policy, paths, scores, bands, seeds, calls, and lengths in characters."""
    chosen, rejected = item.paths[one.chosen], item.paths[one.rejected]
    both = {"chosen": chosen, "rejected": rejected}
    meta: dict[str, object] = {
        "policy": chosen.path.model,
        "because": "wrong" if rejected.band is Band.wrong else "lower",
        "paths": {name: path.path.index for name, path in both.items()},
        "scores": {name: path.score for name, path in both.items()},
        "bands": {name: band_of(path).value for name, path in both.items()},
        "seeds": {name: path.path.seed for name, path in both.items()},
        "calls": {name: list(path.path.calls) for name, path in both.items()},
        "characters": {"chosen": one.lengths.chosen, "rejected": one.lengths.rejected},
    }
    if prompt is not None:
        meta["prompt"] = prompt
    return PreferencePair(
        question_id=item.question.id, chosen=chosen.path, rejected=rejected.path, margin=one.margin, meta=meta
    )


def _margin(better: AssessedPath, worse: AssessedPath) -> float | None:
    """By how many points the one is better; None where they are no pair.

    A path of the high band is never rejected: the same path is one that the reasoning agent learns to write.
    """
    if better.band is not Band.high or better.score is None or worse.band is Band.high:
        return None
    if better.path.model != worse.path.model:
        return None
    points = WRONG_POINTS if worse.band is Band.wrong else worse.score
    return None if points is None else better.score - points


def _bare(text: str) -> str:
    return "".join(text.split())


def _take(found: Sequence[Candidate], rule: PairRule, balance: Balance) -> list[Candidate]:
    """Up to `per_question` pairs: those first that keep lengths even, then of paths not used yet, then by margin."""
    left, uses = list(found), Counter[int]()
    taken: list[Candidate] = []

    def cost(one: Candidate) -> tuple[bool, int, float, int]:
        tips = rule.length_slack is not None and balance.tips(one.lengths)
        return tips, uses[one.chosen] + uses[one.rejected], -one.margin, one.lot

    while left and len(taken) < rule.per_question:
        one = min(left, key=cost)
        left.remove(one)
        taken.append(one)
        balance.add(one.lengths)
        uses.update(one[:2])
    return taken


def _trim(picked: Picked, slack: float) -> None:
    ranks = [(one.margin, one.lot) for _, pairs in picked.pairs.values() for one in pairs]
    dropped, place = to_drop(picked.lengths, ranks, slack), 0
    for number, (name, pairs) in list(picked.pairs.items()):
        kept = [one for i, one in enumerate(pairs, place) if i not in dropped]
        place += len(pairs)
        if kept:
            picked.pairs[number] = (name, kept)
        else:
            del picked.pairs[number]
