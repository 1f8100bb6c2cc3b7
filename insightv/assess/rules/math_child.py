"""The process that runs math-verify: a task in (truth, answer, limit_s), a verdict out (true, false or null).

The system ends it when one comparison has taken its `limit_s` seconds of processor time.
"""

from __future__ import annotations

import logging
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from insightv.child_processes import answer_parent

if TYPE_CHECKING:
    from sympy import Basic  # type: ignore[import-untyped]  # sympy has no types

MEMORY_BYTES = 2 * 2**30


def _whole(text: str) -> tuple[list[Basic | str], bool]:
    """The text as one formula, and whether a letter or two at its end, perhaps a unit, were left out.

    Empty where math-verify reads less of it, or nothing.
    """
    from math_verify import LatexExtractionConfig, parse

    # This process ends when time is up, so math-verify's own alarms, which C code ignores, are not used.
    config = [LatexExtractionConfig()]
    found: list[Basic | str] = parse(f"${text}$", config, parsing_timeout=None)
    read = "".join(found[-1].split()) if found and isinstance(found[-1], str) else ""
    written = "".join(text.split())
    whole = len(found) == 2 and len(read) >= len(written) - 2
    return (found if whole else []), read[-1:] != written[-1:]


def compare(truth: str, answer: str) -> bool | None:
    """Whether the formulas are equal; None where either cannot be read or comparing them fails."""
    from math_verify import verify

    (wanted, some), (given, more) = _whole(truth), _whole(answer)
    if not wanted or not given:
        return None
    try:
        if _is_closed(wanted[0]) or _is_closed(given[0]) or _set_and_interval(wanted[0], given[0]):
            return None
        for left, right in ((wanted, given), (given, wanted)):
            if verify(left, right, timeout_seconds=None, raise_on_error=True):
                return True if _tiny_alike(wanted[0], given[0]) else None
        return None if some or more or _nearly(wanted[0], given[0]) else False
    except Exception:  # any failure inside sympy on hostile input means: not decided
        return None


def _is_closed(formula: Basic | str) -> bool:
    """Whether it states something without a variable (f(2) = 5): math-verify takes any two such for equal."""
    from sympy.core.relational import Relational  # type: ignore[import-untyped]  # sympy has no types

    return not isinstance(formula, str) and any(not stated.free_symbols for stated in formula.atoms(Relational))


def _set_and_interval(wanted: Basic | str, given: Basic | str) -> bool:
    """Whether one is {1, 2} and the other (1, 2): math-verify takes them for equal."""
    from sympy import FiniteSet, Interval

    return any(isinstance(a, FiniteSet) and isinstance(b, Interval) for a, b in ((wanted, given), (given, wanted)))


_TINY = 1e-2


def _tiny_alike(wanted: Basic | str, given: Basic | str) -> bool:
    """Whether each tiny number of one has its like in the other: math-verify compares six digits after the point."""
    ours, theirs = _tiny(wanted), _tiny(given)
    return _have_likes(ours, theirs) and _have_likes(theirs, ours)


def _have_likes(numbers: list[Basic], others: list[Basic]) -> bool:
    return all(any(abs(number - other) <= abs(number) / 1000 for other in others) for number in numbers)


def _tiny(formula: Basic | str) -> list[Basic]:
    """The numbers in a formula that are so near to zero that their first digits may stand far behind the point."""
    from sympy import N

    if isinstance(formula, str):
        return []
    if getattr(formula, "is_number", False):
        value = N(formula)
        return [value] if abs(value) < _TINY else []
    parts = [_tiny(part) for part in formula.args]
    return [number for part in parts for number in part]


def _nearly(wanted: Basic | str, given: Basic | str) -> bool:
    """Whether both are numbers and one may be the other rounded (6.28 for two pi)."""
    from sympy import N

    if not (getattr(wanted, "is_number", False) and getattr(given, "is_number", False)):
        return False
    left, right = complex(N(wanted)), complex(N(given))
    return abs(left - right) <= 0.01 * abs(left)


def _answer(task: Any, _: bytes) -> tuple[bool | None, bytes]:
    """The verdict; without a task none, which says that this process has begun."""
    verdict = None
    if task is not None:
        signal.setitimer(signal.ITIMER_PROF, task["limit_s"])
        with suppress(MemoryError, RecursionError):
            verdict = compare(task["truth"], task["answer"])
        signal.setitimer(signal.ITIMER_PROF, 0)
    return verdict, b""


if __name__ == "__main__":
    import math_verify  # noqa: F401  # paid for at the start, so that the parent's clock measures comparisons alone

    logging.disable(logging.CRITICAL)
    answer_parent(_answer, memory_bytes=MEMORY_BYTES)
