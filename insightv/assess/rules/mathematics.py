"""Mathematics by math-verify, in a process of its own.

sympy can be made to compute for ever inside C code (9^(9^9)), which no thread and no signal ends; a process can be
ended. So an answer, which is untrusted text, is compared in a child with limits on memory and processor time, at which
the system ends it. The child is started when it is first needed, serves one comparison at a time, and ends with its
owner.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from concurrent.futures import ThreadPoolExecutor

from insightv.assess.rules.normalise import final_part
from insightv.child_processes import ChildEnded, LineChild

_LONGEST = 400
PATIENCE = 12
START_S = 120.0
_MATHS = re.compile(
    r"\\[A-Za-z]+|[\^\u03c0\u221a\u221e\u2264\u2265<>\u00b1\u222a\u2229]"  # pi, root, infinity, orders, sets
    r"|\d\s*(?!s\b)[A-Za-z]\b|[A-Za-z0-9)]\s*[=+*]\s*[A-Za-z0-9(-]|\d\s*/|/\s*\d"
    r"|\(.*\d.*,.*[\])]|\[.*\d.*,.*\)"  # a tuple or an interval; [1, 2] may be a list
)
_DEGREES = re.compile(r"\\circ|\\degree|\u00b0")
_OF_DEGREES = re.compile(r"\\(?:sin|cos|tan)[^a-z]{0,20}(?:\\circ|\\degree|\u00b0)")
_SIZE = re.compile(r"\d\s*[A-Za-z]{0,2}\s*(?:x|\u00d7|\\times)\s*(?!10\s*(?:\^|\*\*))\d")
_TEXT = re.compile(r"\\(?:text|mathrm)\{[^{}]*\}")
_BARE_NAME = re.compile(r"(?<![\\A-Za-z])(sin|cos|tan|log|ln|pi)(?![A-Za-z])")
_BARE_ROOT = re.compile(r"\\?(?<![A-Za-z])sqrt\s*\(([^()]*)\)")
_VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?")
_RELATION = re.compile(r"[=<>\u2264\u2265]|\\(?:[gl]eq?|[gl]t|neq?)(?![A-Za-z])")
_ASSIGNED = re.compile(r"(?P<name>[A-Za-z])\s*=\s*(?P<value>[^=<>]+)|(?P<value2>[^=<>]+?)\s*=\s*(?P<name2>[A-Za-z])")
_NAMES = re.compile(r"\\[A-Za-z]+|\b(?:or|and)\b")


def looks_mathematical(text: str) -> bool:
    """Whether a text is one formula: it has a mathematical sign, and no word that is not a function's name.

    3 x 4 may be a size, which is not 4 x 3.
    """
    if len(text) > _LONGEST or not _MATHS.search(text) or _SIZE.search(text):
        return False
    rest = _TEXT.sub(" ", text)
    longest = 2 if re.search(r"[\\^]", text) else 1  # "xy" may be a product, but AC/DC is none
    return not re.search(rf"[^\W\d_]{{{longest + 1},}}", _NAMES.sub(" ", rest))


class MathChecker:
    """Compares two formulas; True, False, or None where either cannot be read or the time is up.

    `limit_s` bounds one comparison in processor time, so that a busy machine changes no verdict; `PATIENCE` times as
    long by the clock is the end of it in any case. The start of the child does not count.
    """

    def __init__(self, limit_s: float = 5.0) -> None:
        self._limit_s = limit_s
        self._child: LineChild | None = None
        # One thread starts the child and asks it; it lives as long as this checker, and so may the child.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="insightv-math")

    async def equal(self, truth: str, answer: str) -> bool | None:
        """Whether two formulas are equal; the event loop is not held up. Both must look mathematical or be numbers."""
        wanted, given = _in_latex(final_part(truth)), _in_latex(final_part(answer))
        if not looks_mathematical(wanted) or not (looks_mathematical(given) or _is_plain(given)):
            return None
        wanted, given = _unnamed(wanted, given)
        verdict = await asyncio.get_running_loop().run_in_executor(self._thread, self._compare, wanted, given)
        unlike = _signs(wanted) != _signs(given) or _OF_DEGREES.search(wanted) or _OF_DEGREES.search(given)
        return None if verdict is False and unlike else verdict

    def _compare(self, truth: str, answer: str) -> bool | None:
        if self._child is None or self._child.wait(0):
            self._child = _start()
            weakref.finalize(self, self._child.end)
        task = {"truth": truth, "answer": answer, "limit_s": self._limit_s}
        try:
            verdict, _ = self._child.ask(task, limit_s=self._limit_s * PATIENCE)
        except ChildEnded:
            return None
        return verdict if isinstance(verdict, bool) else None


def _is_plain(text: str) -> bool:
    return bool(re.fullmatch(r"[-+]?(?:\d{1,15}(?:\.\d{0,15})?|\.\d{1,15}|[1-9]\d{0,2}(?:,\d{3}){1,5})|[A-Za-z]", text))


def _in_latex(text: str) -> str:
    """Names of functions as commands: to math-verify "pi" is p times i."""
    return _BARE_NAME.sub(r"\\\1", _BARE_ROOT.sub(r"\\sqrt{\1}", text))


def _unnamed(truth: str, answer: str) -> tuple[str, str]:
    """Both without the "x =" or "= x" that one of them has."""
    found = _ASSIGNED.fullmatch(truth), _ASSIGNED.fullmatch(answer)
    if found[0] and not _RELATION.search(answer):
        truth = found[0]["value"] or found[0]["value2"]
    if found[1] and not _RELATION.search(truth):
        answer = found[1]["value"] or found[1]["value2"]
    return truth, answer


def _signs(text: str) -> tuple[bool, bool, tuple[str, ...], frozenset[str]]:
    """What two formulas must have in common before a difference is one of value: degrees, relations, variables.

    Math-verify reads a chain of orders (1 < x < 5) in one direction only. To it, a degree is a unit like any other (60
    degrees and a third of pi are two numbers), and each letter of "cm" is a variable.
    """
    rest = _TEXT.sub(" ", text)
    variables = frozenset(_VARIABLE.findall(re.sub(r"\\[A-Za-z]+", " ", rest)))
    orders = [sign for sign in _RELATION.findall(rest) if sign != "="]
    chain = tuple(orders) if len(orders) > 1 else ()
    return bool(_DEGREES.search(text)), bool(_RELATION.search(rest)), chain, variables


def _start() -> LineChild:
    child = LineChild("insightv.assess.rules.math_child")
    try:
        child.ask(None, limit_s=START_S)
    except ChildEnded as error:
        raise RuntimeError(f"the process for math-verify {error} at its start; reinstall math-verify") from None
    return child
