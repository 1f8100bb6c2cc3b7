"""The figures as a table: each line of the aims, with what was measured beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Found = dict[str, Any]


@dataclass(frozen=True)
class Aim:
    """One line: what is measured, the aim and the stretch, the part that measures it, and how it reads the figures."""

    measure: str
    aim: str
    stretch: str
    part: str
    shown: Callable[[Found], str]


def _ratio(found: Found, digits: int = 3) -> str:
    least, most = f"{found['least']:.{digits}f}", f"{found['most']:.{digits}f}"
    return f"{found['median']:.{digits}f} ({least} to {most}, n = {found['repeats']})"


def _paid(found: Found) -> str:
    again = [case["paid_again"] for case in found["cases"]]
    recorded = sum(case["of_recorded"] for case in found["cases"])
    return f"{min(again)} to {max(again)} of {found['in_flight_at_most']} in flight; {recorded} that were recorded"


def _growth(found: Found) -> str:
    return f"{found['growth']:.3f} ({max(map(int, _peak(found))):,} over 1,000)"


def _peak(found: Found) -> dict[str, float]:
    return {str(number): peak for number, peak in found["peak_mb"].items()}


AIMS = (
    Aim(
        "makespan over simulated, 200 questions, 64 slots",
        "<= 1.05",
        "1.02",
        "makespan",
        lambda f: _ratio(f["product"]),
    ),
    Aim("- the bare client's", "", "", "makespan", lambda f: _ratio(f["bare"])),
    Aim("makespan over the slot bound, 1,000 questions", "<= 1.03", "1.015", "bound", lambda f: _ratio(f["product"])),
    Aim("- the bare client's", "", "", "bound", lambda f: _ratio(f["bare"])),
    Aim("- the simulated schedule's", "", "", "bound", lambda f: f"{f['simulated']:.3f}"),
    Aim(
        "requests/s of one process, instant replies, journal on, per second of processor time",
        ">= 1,200",
        "2,000",
        "instant",
        lambda f: _ratio(f["requests_per_s"]["product_busy"], 0),
    ),
    Aim("- the bare client's", "", "", "instant", lambda f: _ratio(f["requests_per_s"]["bare_busy"], 0)),
    Aim(
        "- per second of the clock, product / bare",
        "",
        "",
        "instant",
        lambda f: f"{_ratio(f['requests_per_s']['product'], 0)} / {_ratio(f['requests_per_s']['bare'], 0)}",
    ),
    Aim(
        "processor time per request over the bare client's, journal on, at the server's rate",
        "<= 2.0",
        "1.5",
        "makespan",
        lambda f: _ratio(f["processor"], 2),
    ),
    Aim("- with instant replies", "<= 2.0", "1.5", "instant", lambda f: _ratio(f["processor"], 2)),
    Aim(
        "uncached tokens over the leader schedule, cache 500k",
        "<= 1.05",
        "1.0",
        "bound",
        lambda f: _ratio(f["tokens_500k"]),
    ),
    Aim("- cache 100k", "<= 1.2", "1.0", "tokens", lambda f: _ratio(f["tokens_100k"])),
    Aim("peak memory, 200 questions", "<= 100 MB", "70 MB", "memory", lambda f: f"{_peak(f)['200']:.0f} MB"),
    Aim("- 20,000 over 1,000 questions", "<= 1.10", "1.03", "memory", _growth),
    Aim("bytes written over bytes of kept replies", "<= 2", "1.2", "bytes", lambda f: _ratio(f["written"], 1)),
    Aim("- size of the database at the end", "", "", "bytes", lambda f: _ratio(f["database"], 1)),
    Aim("paid again after kill -9", "<= in flight, none recorded", "", "kill", _paid),
    Aim("makespan with 4 % faults over none", "<= 1.10", "1.05", "faults", lambda f: _ratio(f["makespan"])),
    Aim("- rows lost", "0", "", "faults", lambda f: str(f["lost"])),
)


def table(found: Found) -> str:
    """The lines of the parts that were measured, in Markdown."""
    rows = [(aim.measure, aim.aim, aim.stretch, aim.shown(found[aim.part])) for aim in AIMS if aim.part in found]
    rows = [("measure", "aim", "stretch", "measured: median (least to most)"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"
