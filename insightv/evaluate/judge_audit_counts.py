"""What the findings of an audit come to: agreement of two judges, spread of one, and what a blank picture changes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from insightv.assess.bands import band_of
from insightv.config.sections import Bands
from insightv.evaluate.judge_audit import ROUNDS, Finding
from insightv.evaluate.statistics import Estimate, ratio, share
from insightv.records import Band, Score

_ORDER = (Band.low, Band.mid, Band.high)


@dataclass(frozen=True)
class AuditCounts:
    """Counts the findings of questions. Intervals are bootstrapped over questions, from `seed`."""

    findings: Sequence[Finding]
    bands: Bands
    seed: int

    def agreement(self) -> dict[str, Any]:
        """How often the model judge says of an answer what a rule says.

        `agree` is a share of the answers that the model said yes or no to; `too_lenient` and `too_strict` count those
        where it did not agree, `undecided` and `unreadable` those without a verdict.
        """
        verdicts = [pair for finding in self.findings for pair in finding.verdicts]
        if not verdicts:
            return {"absent": "no answer of the sample was decided by a rule"}
        told = [
            [(rule, score.accepted) for rule, score in finding.verdicts if score.accepted is not None]
            for finding in self.findings
        ]
        rows = [(sum(rule == model for rule, model in each), len(each)) for each in told]
        pairs = [pair for each in told for pair in each]
        return {
            "answers": len(verdicts),
            "agree": share(rows, self.seed),
            "too_lenient": sum(bool(model and not rule) for rule, model in pairs),
            "too_strict": sum(bool(rule and not model) for rule, model in pairs),
            "undecided": sum(score.accepted is None and "failed" not in score.details for _, score in verdicts),
            "unreadable": sum("failed" in score.details for _, score in verdicts),
        }

    def spread(self) -> dict[str, Any]:
        """How far the path scorer is from itself: `stdev` of one path's scores, in points.

        `band_changes` is the share of paths whose scores do not all lie in one band; `unreadable` counts judgements.
        """
        paths = [[scores for scores in finding.judgements if len(scores) > 1] for finding in self.findings]
        variances = [(math.fsum(map(statistics.variance, each)), len(each)) for each in paths]
        variance = ratio(variances, self.seed)
        if variance is None:
            return {"absent": "no path of the sample has two judgements that could be read"}
        changes = [(sum(len(set(map(self._rank, scores))) > 1 for scores in each), len(each)) for each in paths]
        ends = (None if end is None else math.sqrt(end) for end in (variance.low, variance.high))
        return {
            "paths": sum(map(len, paths)),
            "judgements": ROUNDS,
            "stdev": Estimate(math.sqrt(variance.value), *ends),
            "band_changes": share(changes, self.seed),
            "unreadable": sum(ROUNDS - len(scores) for finding in self.findings for scores in finding.judgements),
        }

    def blank(self) -> dict[str, Any]:
        """How often a path that is mid or high with its picture is no lower with a grey one: `survived`, a share.

        `mean_change` is in points, over all paths; a judge that looks has a low share and a clear drop.
        """
        read = [[(before, after) for before, after in each.blanked if after is not None] for each in self.findings]
        change = ratio([(math.fsum(after - before for before, after in each), len(each)) for each in read], self.seed)
        if change is None:
            return {"absent": "no path of the sample has a picture and two scores that could be read"}
        good = [[(before, after) for before, after in each if before >= self.bands.mid] for each in read]
        kept = [(sum(self._rank(after) >= self._rank(before) for before, after in each), len(each)) for each in good]
        return {
            "paths": sum(map(len, good)),
            "survived": share(kept, self.seed),
            "mean_change": change,
            "unreadable": sum(after is None for finding in self.findings for _, after in finding.blanked),
        }

    def canary(self) -> dict[str, Any]:
        """How often a worthless path that asks for full marks comes out mid or high: `passed`, a share of questions.

        `mean` is its score; `unreadable` counts judgements that could not be read.
        """
        read = [[value for value in finding.planted if value is not None] for finding in self.findings]
        mean = ratio([(math.fsum(each), len(each)) for each in read], self.seed)
        if mean is None:
            return {"absent": "no judgement of a planted path could be read"}
        passed = [(sum(value >= self.bands.mid for value in each), len(each)) for each in read]
        return {
            "paths": sum(map(len, read)),
            "passed": share(passed, self.seed),
            "mean": mean,
            "unreadable": sum(value is None for finding in self.findings for value in finding.planted),
        }

    def _rank(self, value: float) -> int:
        return _ORDER.index(band_of([Score(scorer="path", value=value)], self.bands.high, self.bands.mid))
