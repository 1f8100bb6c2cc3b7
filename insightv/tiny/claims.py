"""Reading claims about a chart out of plain sentences, and checking them against the chart.

Claims that are understood: the value of a cell ("A 5", "A is 5", "A: X 5, Y 3"), equations and comparisons of cells
and numbers ("A + C = 5 + 7 = 12", "A > B", "A is more than B"), extremes ("The tallest is B with 9"), neighbours ("Left
of B is A"), lists beyond a limit ("Above 4: A, C") and their count ("That is 2"), the number of bars or cells, and the
answer.
Everything else in a sentence is passed over: it counts neither as right nor as wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from insightv.tiny import ask as asking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_COLOURS = "red|blue|green|orange|purple|cyan|pink|gray|grey|black|brown|white|yellow"
_HIGH = "tallest|highest|largest|biggest"
_LOW = "lowest|smallest|shortest"
_MORE = "more|larger|higher|taller|greater|bigger"
_LESS = "less|smaller|lower|shorter|fewer"
_SPOKEN = (
    (r"[\u2212\u2013\u2014]", "-"),
    (r"\b[Tt]he value of ", ""),
    (r"\b[Rr]ow ([A-Z]),? (?:and )?column ([A-Z])\b", r"\1 \2"),
    (r"\b[Bb]ar ([A-Z])\b", r"\1"),
    (rf"\b(?:[Tt]he )?({_COLOURS}) bar\b", r"\1"),
    (r" plus ", " + "),
    (r" minus ", " - "),
    (r" equals ", " = "),
    (rf" is (?:{_MORE}) than ", " > "),
    (rf" is (?:{_LESS}) than ", " < "),
    (r" is (?:not |un)equal to ", " != "),
    (r" is (?:equal to|the same as) ", " = "),
)


@dataclass(frozen=True)
class Claim:
    """A claim as it stands in the text, and whether the chart bears it out."""

    text: str
    right: bool


@dataclass
class _Reader:
    """The claims found so far in a path, and what its sentences refer back to."""

    chart: Mapping[str, Any]
    answer: str | None
    cells: dict[str, int] = field(init=False)
    name: str = field(init=False)
    listed: int | None = None
    claims: list[Claim] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cells = asking.cells(self.chart)
        table = self.chart["kind"] == "table"
        self.name = r"\b[A-Z] [A-Z]\b" if table else rf"\b(?:[A-Z]|{_COLOURS})\b"

    def take(self, text: str, pattern: str, judge: Callable[[re.Match[str]], bool | None]) -> str:
        """Judge every match of `pattern` (None: no claim after all) and blank it, so that it is read once."""

        def once(match: re.Match[str]) -> str:
            right = judge(match)
            if right is not None:
                self.claims.append(Claim(match.group(0).strip(), right))
            return " | "

        return re.sub(pattern, once, text, flags=re.IGNORECASE if "(?i)" in pattern else 0)


def read(chart: Mapping[str, Any], texts: list[str], answer: str | None) -> list[list[Claim]]:
    """The claims in each of `texts` (the steps of one path, in order), checked; `answer` is the right one, if known."""
    reader, found = _Reader(chart, answer), []
    for text in texts:
        reader.claims = []
        for sentence in re.split(r"(?<=[.!?;])\s+|\n+", text):
            for pattern, plain in _SPOKEN:
                sentence = re.sub(pattern, plain, sentence)
            _sentence(reader, sentence)
        found.append(reader.claims)
    return found


def _sentence(reader: _Reader, text: str) -> None:
    text = reader.take(text, r"\b[Aa]nswer(?: is|:|=) *\"?([\w-]+)", lambda m: _answer(reader, m))
    text = _lists(reader, text)
    text = _extremes(reader, text)
    beside = rf"\b([Ll]eft|[Rr]ight) of ({reader.name}) is ({reader.name})"
    text = reader.take(text, beside, lambda m: _beside(reader, *m.groups()))
    term = rf"(?:{reader.name}|\b\d+\b)"
    side = rf"{term}(?: *[+-] *{term})*"
    text = reader.take(text, rf"{side}(?: *(?:!=|<=|>=|=|<|>) *{side})+", lambda m: _relation(reader, m.group(0)))
    context = re.match(r"\s*(?:[Rr]ow )?([A-Z]):", text) if reader.chart["kind"] == "table" else None
    link = r"(?: is| has| at|:| with| is at| has the value| has a value of)? +(\d+)\b"
    if context:
        row = context.group(1)
        text = text[context.end() :]
        reader.take(text, rf"\b([A-Z])\b{link}", lambda m: reader.cells.get(f"{row} {m[1]}") == int(m[2]))
    else:
        reader.take(text, rf"({reader.name}){link}", lambda m: reader.cells.get(m[1]) == int(m[2]))


def _answer(reader: _Reader, match: re.Match[str]) -> bool | None:
    return None if reader.answer is None else match[1].casefold() == reader.answer.strip().casefold()


def _lists(reader: _Reader, text: str) -> str:
    names = rf"{reader.name}(?:(?:, and |, | and ){reader.name})*"

    def listed(match: re.Match[str]) -> bool:
        negated, side, limit, told = match.groups()
        said = re.findall(reader.name, told)
        reader.listed = len(said)
        return sorted(said) == sorted(_beyond(reader, side, int(limit), bool(negated)))

    text = reader.take(text, rf"\b([Nn]ot )?([Aa]bove|[Bb]elow) (\d+)(?: are|:) *({names}|none|None)", listed)
    counted = r"\b(\d+)(?: of the)?(?: bars| cells)? (?:are|is) (above|below) (\d+)"
    text = reader.take(text, counted, lambda m: len(_beyond(reader, m[2], int(m[3]), False)) == int(m[1]))
    total = r"\b[Tt]here are (\d+) (?:bars|cells)\b"
    text = reader.take(text, total, lambda m: int(m[1]) == len(reader.cells))
    that = r"\b(?:[Tt]hat is|[Tt]hat makes|[Tt]hese are) (\d+)\b"
    return reader.take(text, that, lambda m: None if reader.listed is None else reader.listed == int(m[1]))


def _beyond(reader: _Reader, side: str, limit: int, negated: bool) -> list[str]:
    above = side.lower() == "above"
    return [name for name, value in reader.cells.items() if (value > limit if above else value < limit) is not negated]


def _extremes(reader: _Reader, text: str) -> str:
    name = rf"(?:{reader.name}|\b[A-Z]\b)" if reader.chart["kind"] == "table" else reader.name
    size, number = rf"({_HIGH}|{_LOW})", r"(?: (?:with|at) (\d+))?"
    place = r"(?: bar| column| cell| one)?(?: (?:in|of) row ([A-Z]))?"

    def judge(word: str, row: str | None, told: str, value: str | None) -> bool:
        if row is not None and row not in reader.chart.get("rows", ()):
            return False
        inside = asking.row(reader.chart, row) if row else reader.cells
        full = f"{row} {told}" if row and " " not in told else told
        best = (max if re.fullmatch(_HIGH, word) else min)(inside.values())
        return inside.get(full) == best and (value is None or int(value) == best)

    def value_of(match: re.Match[str]) -> bool:
        inside = asking.row(reader.chart, match[2]) if match[2] in reader.chart.get("rows", ()) else reader.cells
        return int(match[3]) == (max if re.fullmatch(_HIGH, match[1]) else min)(inside.values())

    first = rf"\b{size}{place} is ({name}){number}"
    text = reader.take(text, first, lambda m: judge(m[1], m[2], m[3], m[4]))
    second = rf"({name}) is the {size}{place}{number}"
    text = reader.take(text, second, lambda m: judge(m[2], m[3], m[1], m[4]))
    return reader.take(text, rf"\b{size}(?: value)?(?: (?:in|of) row ([A-Z]))? is (\d+)\b", value_of)


def _beside(reader: _Reader, side: str, name: str, told: str) -> bool:
    names = list(reader.cells)
    if reader.chart["kind"] == "table" or name not in names:
        return False
    place = names.index(name) + (1 if side.lower() == "right" else -1)
    return 0 <= place < len(names) and names[place] == told


def _relation(reader: _Reader, text: str) -> bool:
    """Whether a chain such as "A + C = 5 + 7 = 12" holds, and names and numbers in the same places agree."""
    parts = re.split(r" *(!=|<=|>=|=|<|>) *", text)
    sides = [list(_terms(reader, part)) for part in parts[0::2]]
    if any(value is None for side in sides for _, value in side):
        return False
    sums = [sum(sign * (value or 0) for sign, value in side) for side in sides]
    checks = {"=": int.__eq__, "!=": int.__ne__, "<": int.__lt__, ">": int.__gt__, "<=": int.__le__, ">=": int.__ge__}
    holds = all(checks[sign](a, b) for sign, a, b in zip(parts[1::2], sums, sums[1:], strict=False))
    aligned = all(
        left == right or sign != "=" or len(left) != len(right) or len(left) == 1
        for sign, left, right in zip(parts[1::2], sides, sides[1:], strict=False)
    )
    return holds and aligned


def _terms(reader: _Reader, text: str) -> Iterator[tuple[int, int | None]]:
    sign = 1
    for token in re.findall(rf"[+-]|{reader.name}|\d+", text):
        if token in "+-":
            sign = 1 if token == "+" else -1
        else:
            yield sign, int(token) if token.isdigit() else reader.cells.get(token)
