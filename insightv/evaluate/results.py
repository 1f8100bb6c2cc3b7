"""The results of an evaluation: one row per question, and the counts, rates and comparisons that follow from the rows.

Every count balances: total = right + wrong + rejected + ungraded + failed.

right, wrong   the grader says so
rejected       the system's own replies were not usable (refused, cut off, empty): no answer, and not a right one
ungraded       there is an answer, and the grader could not tell
failed         the model was not reached: nothing about the system

Accuracy is right / (right + wrong + rejected); its bounds are what it is of all questions if everything ungraded or
failed were wrong, and if it were right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, quantiles
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from insightv.errors import InputError
from insightv.evaluate.statistics import Interval, bootstrap, mcnemar, paired_bootstrap, wilson
from insightv.inputs.plain_file import read_plain
from insightv.records import Record, Usage

Outcome = Literal["right", "wrong", "rejected", "ungraded", "failed"]
Verdict = Literal["right", "wrong", "unknown"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
GRADED: frozenset[Outcome] = frozenset(("right", "wrong", "rejected"))
FORMAT: Literal[1] = 1
RESULT = "result.json"
"""The file of an evaluation's folder that holds its result."""


class Graded(Record):
    """One question's result.

    `digest` is of the question's content. `reasoning` says whether what the path itself comes to is right ("unknown":
    it comes to nothing, or that cannot be graded), None where the system does not reason apart from answering.
    `followed`: whether the answer agrees with the path. `seconds`: how long the calls took that led to the answer.
    """

    id: str
    digest: str
    family: str | None = None
    outcome: Outcome
    truth: str
    answer: str | None = None
    code: str | None = None
    graded_by: str = ""
    reason: str = ""
    reasoning: Verdict | None = None
    conclusion: str | None = None
    followed: bool | None = None
    usage: Usage = Usage()
    seconds: float | None = None


class Result(BaseModel):
    """An evaluation as it is kept in `result.json`, beside the summary that follows from it.

    `models` are the models asked, by agent; `grading` is what the answers were graded with; `bad_rows` the number of
    faults in rows that were left out.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = FORMAT
    system: str
    name: str
    data: str
    seed: int
    models: dict[str, str | None]
    grading: dict[str, Any]
    bad_rows: int = 0
    rows: tuple[Graded, ...]

    def as_json(self) -> dict[str, Any]:
        """The whole as one JSON object: what it is, the summary, and the rows."""
        head = self.model_dump(mode="json", exclude={"rows"})
        return {**head, **summary(self.rows), "rows": [row.model_dump(mode="json") for row in self.rows]}


def read_result(path: str | Path) -> Result:
    """A result from its file, or from the folder of its evaluation.

    Raises:
        InputError: there is none, or it is something else.
    """
    file = Path(path) / RESULT if Path(path).is_dir() else Path(path)
    try:
        return Result.model_validate_json(read_plain(file))
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be read: {error.strerror or error}; give two result.json") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(f"{str(file)!r} is not the result of an evaluation: {where}: {first['msg']}") from error


def summary(rows: Sequence[Graded]) -> dict[str, Any]:
    """All that is counted: accuracy as a whole and by family, reasoning against answer, tokens and seconds."""
    families = sorted({row.family for row in rows if row.family is not None})
    reasoned = [row for row in rows if row.reasoning is not None]
    return {
        "questions": _accuracy(rows),
        "families": {family: _accuracy([row for row in rows if row.family == family]) for family in families},
        "reasoning": _reasoning(reasoned) if reasoned else None,
        "followed": _followed(reasoned) if reasoned else None,
        "tokens": _tokens(rows),
        "seconds": _seconds([row.seconds for row in rows if row.seconds is not None]),
    }


def _outcomes(rows: Iterable[Graded]) -> dict[str, int]:
    counts = Counter(row.outcome for row in rows)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def _accuracy(rows: Sequence[Graded]) -> dict[str, Any]:
    counts, total = _outcomes(rows), len(rows)
    right, graded = counts["right"], sum(counts[outcome] for outcome in GRADED)
    open_ = counts["ungraded"] + counts["failed"]
    return {
        "total": total,
        **counts,
        "graded": graded,
        "accuracy": _share(right, graded),
        "interval": _rounded(wilson(right, graded)),
        "bootstrap": _rounded(bootstrap(right, graded)),
        "bounds": _rounded((right / total, (right + open_) / total)) if total else None,
    }


def _reasoning(rows: Sequence[Graded]) -> dict[str, Any]:
    """The paper's matrix, and how often a right path was kept and a wrong one made good."""
    matrix = {verdict: _outcomes(row for row in rows if row.reasoning == verdict) for verdict in VERDICTS}
    return {
        "matrix": matrix,
        "right": sum(matrix["right"].values()),
        "wrong": sum(matrix["wrong"].values()),
        "unknown": sum(matrix["unknown"].values()),
        "kept": _accuracy([row for row in rows if row.reasoning == "right"]),
        "recovered": _accuracy([row for row in rows if row.reasoning == "wrong"]),
    }


def _followed(rows: Sequence[Graded]) -> dict[str, Any]:
    """What the summary agent did with the path, and how its answers came out in each case."""
    cases = (("followed", True), ("overruled", False), ("unknown", None))
    return {
        name: {
            **_accuracy(chosen := [row for row in rows if row.followed is case]),
            "by_reasoning": {v: _outcomes(row for row in chosen if row.reasoning == v) for v in VERDICTS},
        }
        for name, case in cases
    }


def _tokens(rows: Sequence[Graded]) -> dict[str, Any]:
    usage = sum((row.usage for row in rows), Usage())
    sums = {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "completion": usage.completion_tokens}
    count = len(rows) or 1
    return {
        **sums,
        "requests": usage.requests,
        "per_question": {
            name: round(value / count, 2) for name, value in (*sums.items(), ("requests", usage.requests))
        },
    }


def _seconds(seconds: Sequence[float]) -> dict[str, Any]:
    if not seconds:
        return {"measured": 0, "mean": None, "median": None, "p90": None}
    cuts = quantiles(seconds, n=10, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 9
    return {
        "measured": len(seconds),
        "mean": round(mean(seconds), 3),
        "median": round(cuts[4], 3),
        "p90": round(cuts[8], 3),
    }


def compare(first: Result, second: Result) -> dict[str, Any]:
    """Two systems on the same questions, paired; differences are the second's accuracy less the first's.

    A question is the same where id and content are. Pairs of which one side is ungraded or failed are left out of the
    difference, and counted; `bounds` are the difference on all pairs if those had come out worst and best.

    Raises:
        InputError: the two have no question in common.
    """
    ours, theirs = ({row.id: row for row in result.rows} for result in (first, second))
    both = [(row, theirs[row.id]) for row in first.rows if row.id in theirs]
    pairs = [(a, b) for a, b in both if a.digest == b.digest]
    if not pairs:
        raise InputError(
            f"{first.name} ({first.data}) and {second.name} ({second.data}) have no question in common; "
            "evaluate both systems on the same file"
        )
    families = sorted({a.family for a, _ in pairs if a.family is not None})
    notes = [] if first.grading == second.grading else ["the two were graded with different settings"]
    return {
        "first": _head(first, [a for a, _ in pairs]),
        "second": _head(second, [b for _, b in pairs]),
        "left_out": {
            "only_in_first": len(ours) - len(both),
            "only_in_second": len(theirs) - len(both),
            "content_differs": len(both) - len(pairs),
        },
        **_paired(pairs),
        "families": {family: _paired([pair for pair in pairs if pair[0].family == family]) for family in families},
        "notes": notes,
    }


def _head(result: Result, rows: Sequence[Graded]) -> dict[str, Any]:
    """One side of a comparison, on the shared questions only."""
    found = summary(rows)
    return {
        "system": result.system,
        "name": result.name,
        "models": result.models,
        "seed": result.seed,
        **{name: found[name] for name in ("questions", "tokens", "seconds")},
    }


def _paired(pairs: Sequence[tuple[Graded, Graded]]) -> dict[str, Any]:
    known = [(a, b) for a, b in pairs if a.outcome in GRADED and b.outcome in GRADED]
    counts = Counter((a.outcome == "right", b.outcome == "right") for a, b in known)
    only_first, only_second = counts[True, False], counts[False, True]
    return {
        "pairs": len(known),
        "not_graded": len(pairs) - len(known),
        "both_right": counts[True, True],
        "only_first": only_first,
        "only_second": only_second,
        "both_wrong": counts[False, False],
        "difference": _share(only_second - only_first, len(known)),
        "interval": _rounded(paired_bootstrap(only_first, only_second, len(known))),
        "p": mcnemar(only_first, only_second) if known else None,
        "right": _right_or_not(pairs),
        "bounds": _difference_bounds(pairs),
    }


def _right_or_not(pairs: Sequence[tuple[Graded, Graded]]) -> dict[str, Any]:
    """Right answers of one side only, and the exact p of so uneven a split; what could not be graded is not right."""
    reached = [(a.outcome == "right", b.outcome == "right") for a, b in pairs if "failed" not in (a.outcome, b.outcome)]
    counts = Counter(reached)
    lost, won = counts[True, False], counts[False, True]
    return {"pairs": len(reached), "only_first": lost, "only_second": won, "p": mcnemar(lost, won) if reached else None}


def _difference_bounds(pairs: Sequence[tuple[Graded, Graded]]) -> list[float] | None:
    if not pairs:
        return None

    def least(row: Graded) -> int:
        return int(row.outcome == "right")

    def most(row: Graded) -> int:
        return int(row.outcome == "right" or row.outcome not in GRADED)

    low = sum(least(b) - most(a) for a, b in pairs) / len(pairs)
    return _rounded((low, sum(most(b) - least(a) for a, b in pairs) / len(pairs)))


def _share(count: int, total: int) -> float | None:
    return round(count / total, 6) if total else None


def _rounded(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [round(end, 6) for end in interval]
