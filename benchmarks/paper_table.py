"""The miniature's results as JSON, a table and a plot."""

from __future__ import annotations

import json
import random
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from insightv.evaluate.results import Graded, Result

PAPER = {
    "Baseline": 59.2,
    "Vanilla direct SFT": 60.6,
    "Multi-turn supervised": 61.0,
    "Summary agent only": 59.8,
    "Multi-Agent": 62.1,
    "+ RLAIF (external pairs)": 62.3,
    "+ DPO": 62.7,
    "+ Iterative DPO": 63.3,
}
"""The averages of the paper's tables 3 and 4 (four benchmarks, a 7B base)."""
COMPARED = (
    ("Baseline", "Vanilla direct SFT"),
    ("Vanilla direct SFT", "Multi-turn supervised"),
    ("Vanilla direct SFT", "Multi-Agent"),
    ("Summary agent only", "Multi-Agent"),
    ("Multi-Agent", "+ RLAIF (external pairs)"),
    ("Multi-Agent", "+ DPO"),
    ("+ DPO", "+ Iterative DPO"),
    ("Multi-Agent", "+ Iterative DPO"),
)
FAMILIES = ("all", "perception", "reasoning")
RESAMPLES = 4000
Shares = dict[str, float]
"""Of each question (by id) the share of the seeds that had it right."""


def told(result: Result) -> str:
    """A result in one line."""
    shares = {family: shares_of([result], family) for family in FAMILIES}
    return ", ".join(f"{family} {100 * fmean(found.values()):.1f} %" for family, found in shares.items() if found)


def shares_of(results: Sequence[Result], family: str) -> Shares:
    """The share of `results` (one per seed) that had each question of the family right."""
    ids = [row.id for row in results[0].rows if family in ("all", row.family)]
    right = [{row.id: row.outcome == "right" for row in result.rows} for result in results]
    return {name: fmean(one[name] for one in right) for name in ids}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile bootstrap of the mean over questions, in percent."""
    rng, count = random.Random(0), len(values)
    means = sorted(fmean(rng.choices(values, k=count)) for _ in range(RESAMPLES))
    return 100 * means[int(0.025 * RESAMPLES)], 100 * means[int(0.975 * RESAMPLES)]


def row_of(results: Sequence[Result]) -> dict[str, Any]:
    """Accuracy in percent by family: the mean of the seeds with its interval over questions, and each seed's."""
    found: dict[str, Any] = {}
    for family in FAMILIES:
        shares = list(shares_of(results, family).values())
        seeds = [round(100 * fmean(shares_of([result], family).values()), 1) for result in results]
        found[family] = {"mean": round(100 * fmean(shares), 1), "interval": _rounded(interval(shares)), "seeds": seeds}
    usage = [row.usage.completion_tokens for result in results for row in result.rows]
    found["agents"] = judgement([row for result in results for row in result.rows])
    return found | {"questions": len(shares_of(results, "all")), "completion_tokens": round(fmean(usage), 1)}


def judgement(rows: Sequence[Graded]) -> dict[str, float] | None:
    """Percent of paths that come to the right answer, and of right and wrong ones what the summary agent had right."""
    right, wrong = ([row.outcome == "right" for row in rows if row.reasoning == one] for one in ("right", "wrong"))
    if not right or not wrong:
        return None
    told = {"paths": len(right) / len(rows), "kept": fmean(right), "mended": fmean(wrong)}
    return {name: round(100 * share, 1) for name, share in told.items()}


def difference(first: Sequence[Result], second: Sequence[Result]) -> dict[str, Any]:
    """Second less first in points on the same questions, paired."""
    one, two = shares_of(first, "all"), shares_of(second, "all")
    apart = [two[name] - one[name] for name in one]
    return {"difference": round(100 * fmean(apart), 1), "interval": _rounded(interval(apart))}


def _rounded(pair: tuple[float, float]) -> list[float]:
    return [round(value, 1) for value in pair]


def write(
    out: Path,
    about: Mapping[str, Any],
    tables: Mapping[int, Mapping[str, Result]],
    curves: Mapping[int, Mapping[int, Result]],
    scaling: Sequence[int],
) -> None:
    """Write `paper.json`, `paper.md`, `paper.png` and `paper.svg` into `out`."""
    by_row = {row: [table[row] for table in tables.values()] for row in PAPER}
    curve = {count: [found[count] for found in curves.values()] for count in scaling[:-1]}
    curve[scaling[-1]] = by_row["Multi-Agent"]
    found: dict[str, Any] = {
        **about,
        "rows": {row: row_of(results) | {"paper": PAPER[row]} for row, results in by_row.items()},
        "differences": [{"from": a, "to": b} | difference(by_row[a], by_row[b]) for a, b in COMPARED],
        "scaling": {str(count): row_of(results) for count, results in curve.items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "paper.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (out / "paper.md").write_text(markdown(found), encoding="utf-8")
    plot(found, out)


def markdown(found: Mapping[str, Any]) -> str:
    """The tables for people."""
    seeds, rows = len(found["seeds"]), found["rows"]
    lines = [
        "# The paper's tables in miniature",
        "",
        f"`{found['command']}`: {found['seconds'] / 60:.0f} minutes, {next(iter(rows.values()))['questions']} held-out "
        f"questions, {seeds} seeds (mean [95 % interval over questions]; percent right).",
        "",
        "| row | all | perception | reasoning | by seed | reply tokens | paper (7B, average of four) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = [f"{row[f]['mean']} [{row[f]['interval'][0]}, {row[f]['interval'][1]}]" for f in FAMILIES]
        by_seed = " / ".join(str(value) for value in row["all"]["seeds"])
        lines.append(f"| {name} | {' | '.join(cells)} | {by_seed} | {row['completion_tokens']:.0f} | {row['paper']} |")
    lines += ["", "| two agents | paths right | answered right of these | and of wrong paths |", "|---|---|---|---|"]
    for name, row in rows.items():
        if row["agents"]:
            lines.append(f"| {name} | {' | '.join(str(row['agents'][part]) for part in ('paths', 'kept', 'mended'))} |")
    lines += ["", "| from | to | difference in points [95 %] |", "|---|---|---|"]
    for one in found["differences"]:
        low, high = one["interval"]
        lines.append(f"| {one['from']} | {one['to']} | {one['difference']:+} [{low:+}, {high:+}] |")
    lines += ["", "| training questions | Multi-Agent, all | by seed |", "|---|---|---|"]
    for count, row in found["scaling"].items():
        low, high = row["all"]["interval"]
        by_seed = " / ".join(str(value) for value in row["all"]["seeds"])
        lines.append(f"| {count} | {row['all']['mean']} [{low}, {high}] | {by_seed} |")
    return "\n".join(lines) + "\n"


def plot(found: Mapping[str, Any], out: Path) -> None:
    """Bars of every row by family, and the curve over the number of training questions."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "insightv"
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), width_ratios=(2.2, 1), layout="constrained")
    rows, width = found["rows"], 0.27
    for place, (family, colour) in enumerate(zip(FAMILIES, ("#30638e", "#edae49", "#7a9e7e"), strict=True)):
        means = [row[family]["mean"] for row in rows.values()]
        ends = [row[family]["interval"] for row in rows.values()]
        bars = [[m - low for m, (low, _) in zip(means, ends, strict=True)]]
        bars.append([high - m for m, (_, high) in zip(means, ends, strict=True)])
        at = [number + (place - 1) * width for number in range(len(rows))]
        left.bar(at, means, width, label=family, color=colour, yerr=bars, capsize=2, error_kw={"lw": 0.8})
    left.set_xticks(range(len(rows)), [textwrap.fill(name, 13) for name in rows], fontsize=8)
    left.set_ylabel("right, % of held-out questions")
    left.set_title("Tables 3 and 4, with the split of tables 1 and 2")
    left.legend(frameon=False, fontsize=8)
    counts = [int(count) for count in found["scaling"]]
    curve = list(found["scaling"].values())
    for family, colour in zip(FAMILIES, ("#30638e", "#edae49", "#7a9e7e"), strict=True):
        right.plot(counts, [row[family]["mean"] for row in curve], marker="o", label=family, color=colour)
    low, high = zip(*(row["all"]["interval"] for row in curve), strict=True)
    right.fill_between(counts, low, high, alpha=0.15, color="#30638e")
    right.set_xscale("log", base=2)
    right.set_xticks(counts, [str(count) for count in counts])
    right.set_xlabel("training questions")
    right.set_title("Figure 4: Multi-Agent by amount of data")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(0, 100)
    for kind in ("png", "svg"):
        figure.savefig(out / f"paper.{kind}", dpi=150, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)
