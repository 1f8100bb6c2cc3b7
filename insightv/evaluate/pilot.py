"""A pilot: a sample of a run's questions, done first, and what it says of the whole.

The sample is part of the run, so that the full build pays for none of it again. Intervals are bootstrapped over
questions.
"""

from __future__ import annotations

import math
import random
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import orjson

from insightv.assess.bands import band_of
from insightv.config.settings import Settings
from insightv.evaluate.judge_audit import AuditCounts, JudgeAudit
from insightv.evaluate.statistics import Estimate, percentiles, resampled_means
from insightv.records import Band, PathStatus, Usage, seed_of
from insightv.runs.budget import Budget
from insightv.runs.session import Session
from insightv.runs.store import AUDIT, Progress, questions_of, read_progress, read_totals, unpack_replies

AMOUNTS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "usd", "seconds")
Amounts = dict[str, Estimate | None]


@dataclass(frozen=True)
class PilotReport:
    """What a pilot found.

    `total` questions, of which `sampled` were chosen. `whole` is projected for all questions and `left` for those that
    are not done yet, by amount (requests, tokens by kind, usd, seconds of the clock); None where an amount cannot be
    told, and `notes` say why. `spent` is what the run has spent so far, `audit` the part of it that went into checking
    the judges. `funnel` counts the sample's paths on their way. `judges` has `agreement`, `spread`, `blank` and
    `canary` (see `AuditCounts`); one that could not be looked at has `absent`, the reason.
    """

    total: int
    sampled: int
    whole: Amounts
    left: Amounts
    spent: dict[str, float]
    audit: dict[str, float]
    funnel: dict[str, Any]
    judges: dict[str, dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Call:
    """A recorded call of a sampled question: `seconds` is how long it held a slot."""

    model: str
    usage: Usage
    seconds: float
    audit: bool


@dataclass(frozen=True)
class Sampled:
    """What is recorded of the sample, question by question, and how many questions the run has in all."""

    total: int
    done: int
    progress: list[Progress]
    calls: list[list[Call]]
    spent: dict[str, float]


def sample(connection: sqlite3.Connection, size: int, seed: int) -> list[int]:
    """The numbers of `size` questions, spread over the file: one by chance out of each of `size` stretches of it."""
    (total,) = connection.execute("SELECT count(*) FROM questions WHERE present = 1").fetchone()
    size = min(size, total)
    rng = random.Random(seed_of(seed, "pilot", size, total))
    ranks = {rng.randrange(place * total // size, (place + 1) * total // size) for place in range(size)}
    rows = connection.execute("SELECT seq FROM questions WHERE present = 1 ORDER BY seq")
    return [seq for rank, (seq,) in enumerate(rows) if rank in ranks]


def read_sampled(connection: sqlite3.Connection, seqs: Sequence[int]) -> Sampled:
    """What the run has recorded of the questions `seqs`."""
    counted = "SELECT count(*), coalesce(sum(state = 'done'), 0) FROM questions WHERE present = 1"
    total, done = connection.execute(counted).fetchone()
    return Sampled(
        total=total,
        done=done,
        progress=[read_progress(connection, row.seq, row.epoch) for row in questions_of(connection, seqs)],
        calls=[_calls(connection, seq) for seq in seqs],
        spent=read_totals(connection),
    )


def _calls(connection: sqlite3.Connection, seq: int) -> list[Call]:
    """The calls of a question; those that were not answered count as its own, not the audit's."""
    calls = []
    asked = "SELECT key, model, kind, replies, seconds FROM calls WHERE question = ?"
    for key, model, kind, replies, seconds in connection.execute(asked, (seq,)):
        usage = sum((reply.usage for reply in unpack_replies(replies, key)), Usage())
        calls.append(Call(model, usage, seconds, kind.startswith(AUDIT)))
    unanswered = "SELECT model, usage, seconds FROM faults WHERE question = ?"
    for model, usage, seconds in connection.execute(unanswered, (seq,)):
        calls.append(Call(model, Usage.model_validate(orjson.loads(usage)), seconds, audit=False))
    return calls


class Projection:
    """What the whole of a run will take, told from a sample of its questions.

    `shares` are the parts of the listed prices that models cost. Without `timed` no time is given.
    """

    def __init__(
        self,
        settings: Settings,
        budget: Budget,
        sampled: Sampled,
        shares: Mapping[str, float] | None = None,
        *,
        timed: bool = True,
    ) -> None:
        self._settings = settings
        self._budget = budget
        self._shares = shares or {}
        self._timed = timed
        self._sampled = sampled
        own = [[call for call in calls if not call.audit] for calls in sampled.calls]
        self._rows = [self._amounts(calls) for calls in own]
        self._means = resampled_means(self._rows, settings.seed) if len(self._rows) > 1 else []
        self._unpriced = sorted({call.model for calls in own for call in calls} - set(settings.run.prices))

    @property
    def audit(self) -> dict[str, float]:
        """What checking the judges took."""
        calls = [call for calls in self._sampled.calls for call in calls if call.audit]
        return dict(zip(AMOUNTS, self._amounts(calls), strict=True))

    def whole(self) -> Amounts:
        """For all questions of the run."""
        known = [math.fsum(column) for column in zip(*self._rows, strict=True)]
        return self._amounts_of(known, self._sampled.total - len(self._rows))

    def left(self) -> Amounts:
        """For the questions that are not done yet."""
        return self._amounts_of([0.0] * len(AMOUNTS), self._sampled.total - self._sampled.done)

    def notes(self) -> list[str]:
        """What cannot be told and why, and which budgets the whole goes beyond."""
        notes = [f"money cannot be told: run.prices has no price for {', '.join(self._unpriced)}"] * bool(
            self._unpriced
        )
        if not self._timed:
            notes.append("time cannot be told: some calls go out as batch jobs, each of which may take up to a day")
        if len(self._rows) < 2:
            notes.append("one question tells no interval; take more for the pilot")
        return notes + self._beyond()

    def _beyond(self) -> list[str]:
        run, whole = self._settings.run, self.whole()
        tokens = [whole[name] for name in ("prompt_tokens", "completion_tokens")]
        wanted = {
            "max_requests": whole["requests"],
            "max_tokens": Estimate(math.fsum(each.value for each in tokens if each is not None)),
            "max_usd": whole["usd"],
        }
        return [
            f"the whole is projected to take {amount.value:,.6g}, which is beyond run.{name} = {getattr(run, name):g}"
            for name, amount in wanted.items()
            if amount is not None and getattr(run, name) is not None and amount.value > getattr(run, name)
        ]

    def _amounts(self, calls: Sequence[Call]) -> list[float]:
        usage = sum((call.usage for call in calls), Usage())
        usd = math.fsum(self._shares.get(call.model, 1.0) * self._budget.cost(call.model, call.usage) for call in calls)
        counts = (usage.requests, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
        return [*map(float, counts), usd, math.fsum(call.seconds for call in calls)]

    def _amounts_of(self, known: Sequence[float], rest: int) -> Amounts:
        """`known` plus what `rest` further questions take.

        A sum of `rest` draws is as uncertain as the mean of the sample, times `rest`, and has their own chance besides:
        its variance is rest (rest + n) / n of a question's. The bootstrapped means are stretched by as much.
        """
        n = len(self._rows)
        found: Amounts = {}
        for place, name in enumerate(AMOUNTS):
            mean = math.fsum(row[place] for row in self._rows) / n
            stretch = math.sqrt(rest * (rest + n) * n / max(1, n - 1))
            sums = (known[place] + rest * mean + stretch * (means[place] - mean) for means in self._means)
            ends = percentiles(max(known[place], value) for value in sums)
            found[name] = Estimate(known[place] + rest * mean, *(ends or (None, None)))
        if self._unpriced:
            found["usd"] = None
        found["seconds"] = self._by_the_clock(found["seconds"])
        return found

    def _by_the_clock(self, busy: Estimate | None) -> Estimate | None:
        """Seconds of all slots together as seconds of the clock, with every slot in use."""
        slots = min(self._settings.run.concurrency, self._sampled.total * self._settings.generator.paths)
        if busy is None or not self._timed:
            return None
        return Estimate(*(None if value is None else value / slots for value in (busy.value, busy.low, busy.high)))  # type: ignore[arg-type]


def report_on(settings: Settings, session: Session, sampled: Sampled, audit: JudgeAudit) -> PilotReport:
    """What a pilot comes to once its sample is done and its judges are audited."""
    shares, timed = session.price_shares, not session.sends_jobs
    projection = Projection(settings, session.budget, sampled, shares, timed=timed)
    counts = AuditCounts(audit.findings, settings.bands, settings.seed)
    no_model = {"absent": "no model judge is configured: answers are judged by rules alone"}
    no_paths = {"absent": "no path scorer is configured: there is nothing to ask again"}
    return PilotReport(
        total=sampled.total,
        sampled=len(sampled.progress),
        whole=projection.whole(),
        left=projection.left(),
        spent=sampled.spent,
        audit=projection.audit,
        funnel=funnel(settings, sampled),
        judges={
            "agreement": counts.agreement() if audit.answer else no_model,
            "spread": counts.spread() if audit.path else no_paths,
            "blank": counts.blank() if audit.path else no_paths,
            "canary": counts.canary() if audit.path else no_paths,
        },
        notes=projection.notes(),
    )


def funnel(settings: Settings, sampled: Sampled) -> dict[str, Any]:
    """The sample's paths on their way: written, ok, accepted or refused by each scorer, and their bands."""
    paths = [path for progress in sampled.progress for path in progress.paths]
    statuses = Counter(path.status for path in paths)
    bands = dict.fromkeys((band.value for band in Band), 0)
    for progress in sampled.progress:
        for path in progress.paths:
            if path.status == "ok":
                scores = [found[path.index] for _, found in sorted(progress.scores.items()) if path.index in found]
                bands[band_of(scores, settings.bands.high, settings.bands.mid)] += 1
    return {
        "paths": {
            "total": len(paths),
            **{status: statuses[status] for status in get_args(PathStatus)},
            "by_code": dict(Counter(path.code for path in paths if path.code)),
        },
        "scorers": [_passed(table.use, at, sampled) for at, table in enumerate(settings.scorers)],
        "bands": bands,
    }


def _passed(name: str, position: int, sampled: Sampled) -> dict[str, Any]:
    scores = [score for progress in sampled.progress for score in progress.scores.get(position, {}).values()]
    verdicts = [score.accepted for score in scores]
    unjudged = sum(score.accepted is None and score.value is None for score in scores)
    refused = verdicts.count(False)
    return {
        "scorer": name,
        "seen": len(scores),
        "passed": len(scores) - refused - unjudged,
        "refused": refused,
        "unjudged": unjudged,
    }
