"""The process that runs math-verify: a line of JSON in (truth, answer), a line out (true, false or null).

Run by `mathematics` as a script; imports nothing of insightv, and ends when its input does.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sympy import Basic  # type: ignore[import-untyped]  # sympy has no types

MEMORY_BYTES = 2 * 2**30


def _limit_memory() -> None:
    try:
        import resource
    except ModuleNotFoundError:  # not on Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def _whole(text: str) -> list[Basic | str]:
    """The text as one formula; empty where math-verify reads only a part of it, or nothing."""
    from math_verify import LatexExtractionConfig, parse  # type: ignore[import-untyped]  # math-verify has no types

    # The parent ends this process when time is up, so math-verify's own alarms, which C code ignores, are not used.
    config = [LatexExtractionConfig()]
    found: list[Basic | str] = parse(f"${text}$", config, parsing_timeout=None)
    read = "".join(found[-1].split()) if found and isinstance(found[-1], str) else ""
    return found if len(found) == 2 and len(read) >= len("".join(text.split())) - 2 else []


def compare(truth: str, answer: str) -> bool | None:
    """Whether the formulas are equal; None where either cannot be read or comparing them fails."""
    from math_verify import verify

    wanted, given = _whole(truth), _whole(answer)
    if not wanted or not given:
        return None
    try:
        return bool(
            verify(wanted, given, timeout_seconds=None, raise_on_error=True)
            or verify(given, wanted, timeout_seconds=None, raise_on_error=True)
        )
    except Exception:  # any failure inside sympy on hostile input means: not decided
        return None


def main() -> None:
    """Answer lines until the input ends."""
    logging.disable(logging.CRITICAL)
    _limit_memory()
    import math_verify  # noqa: F401  # paid for before "ready", so that the parent's clock measures comparisons alone

    print("ready", flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        try:
            verdict = compare(task["truth"], task["answer"])
        except (MemoryError, RecursionError):
            verdict = None
        print(json.dumps(verdict), flush=True)


if __name__ == "__main__":
    main()
