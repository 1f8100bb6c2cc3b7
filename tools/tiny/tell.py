"""How a right path about a chart reads: first what the picture shows, then the working, then the answer.

The words vary with the random source, so that several paths about one question differ. The recipe trains on these
texts; `chart_steps` reads them, and others like them, back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from insightv.tiny import ask as asking

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    Chart = Mapping[str, Any]
    Steps = list[tuple[str, str]]

_READ = ("Read the values", "Look at the chart", "What the picture shows")
MORE = ("Read on", "Look at the rest", "The other values")
_WORK = ("Work it out", "Use the values", "Think")
_CHECK = ("Check", "Look again", "Make sure")
_END = ("Conclusion", "Answer", "Sum up")


def describe(chart: Chart) -> str:
    """All values of the chart in one line: "A 5, B 3, C 7." or "A: X 5, Y 3. B: X 2, Y 9."."""
    return " ".join(_readings(chart))


def _readings(chart: Chart) -> list[str]:
    """The description in sentences: one per row of a table; a bar chart is one sentence."""
    if chart["kind"] == "bars":
        return [_list(list(asking.cells(chart).items()))]
    return [
        f"{name}: " + _list([(cell.split()[1], value) for cell, value in asking.row(chart, name).items()])
        for name in chart["rows"]
    ]


def _list(pairs: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs) + "."


def steps(chart: Chart, kind: str, ask: Mapping[str, Any], rng: random.Random, *, taken: Chart | None = None) -> Steps:
    """Title and content of each step, 2 to 6 of them; the last one states the answer.

    `taken` is what the working takes for the chart, where that differs from what was read (a faulty path).
    """
    path = _opening(chart, rng)
    chart = taken or chart
    work, check = _working(chart, kind, ask, rng)
    if len(work) > 1 and rng.random() < 0.5:
        path += [(title, text) for title, text in zip(rng.sample(_WORK, len(work)), work, strict=True)]
    else:
        path.append((rng.choice(_WORK), " ".join(work)))
    if check and rng.random() < 0.4:
        path.append((rng.choice(_CHECK), check))
    end = f"The answer is {asking.answer(chart, kind, ask)}."
    if rng.random() < 0.5:
        path.append((rng.choice(_END), end))
    else:
        path[-1] = (path[-1][0], f"{path[-1][1]} {end}")
    return path


def drill(
    chart: Chart, asks: Sequence[tuple[str, Mapping[str, Any]]], rng: random.Random, *, described: bool = True
) -> str:
    """The workings of many questions (kind and parameters) in a row, most often (if `described`) after the description.

    It is training matter only: nearly every token is a value or name to be looked up, in the text or the picture.
    """
    sentences = [describe(chart)] if described and rng.random() < 0.7 else []
    for kind, ask in asks:
        work, check = _working(chart, kind, ask, rng)
        sentences += [*work, check] if rng.random() < 0.3 else work
    return " ".join(filter(None, sentences))


def _opening(chart: Chart, rng: random.Random) -> Steps:
    sentences = _readings(chart)
    if rng.random() < 0.65:
        return [(rng.choice(_READ), " ".join(sentences))]
    if len(sentences) == 1:
        pairs = list(asking.cells(chart).items())
        half = (len(pairs) + 1) // 2
        sentences = [_list(pairs[:half]), _list(pairs[half:])]
    return [(rng.choice(_READ), sentences[0]), (rng.choice(MORE), " ".join(sentences[1:]))]


def _working(chart: Chart, kind: str, ask: Mapping[str, Any], rng: random.Random) -> tuple[list[str], str]:
    """The sentences of the working (one or two) and a check ("" where there is none worth making)."""
    values = asking.cells(chart)
    if kind in ("sum", "difference"):
        return _pair(values, kind, ask["a"], ask["b"])
    if kind == "compare":
        a, b = ask["a"], ask["b"]
        less, more = sorted((a, b), key=lambda name: values[name])
        sign = ">" if values[a] > values[b] else "<" if values[a] < values[b] else "="
        return [f"{a} {values[a]} and {b} {values[b]}.", f"{a} {sign} {b}."], _minus(values, more, less)
    if kind == "count":
        found, word = asking.beyond(chart, ask), "Above" if ask["above"] else "Below"
        rest = [name for name in values if name not in found]
        check = f"Not {word.lower()} {ask['limit']}: {', '.join(rest) or 'none'}."
        return [f"{word} {ask['limit']}: {', '.join(found) or 'none'}.", f"That is {len(found)}."], check
    if kind == "value":
        start = rng.choice(("", "It is "))
        return [f"{start}{ask['a']} {values[ask['a']]}."], ""
    if kind == "range":
        top, low = asking.extreme(values, True), asking.extreme(values, False)
        both = f"The tallest is {top} with {values[top]}. The lowest is {low} with {values[low]}."
        return [both, _minus(values, top, low)], f"{values[top] - values[low]} + {values[low]} = {values[top]}."
    return _search(chart, kind, ask)


def _pair(values: Mapping[str, int], kind: str, a: str, b: str) -> tuple[list[str], str]:
    if kind == "sum":
        total = values[a] + values[b]
        work = [f"{a} {values[a]} and {b} {values[b]}.", f"{a} + {b} = {values[a]} + {values[b]} = {total}."]
        return work, f"{total} - {values[b]} = {values[a]}."
    less, more = sorted((a, b), key=lambda name: values[name])
    gap = values[more] - values[less]
    work = [f"{a} {values[a]} and {b} {values[b]}.", _minus(values, more, less)]
    return work, f"{gap} + {values[less]} = {values[more]}."


def _minus(values: Mapping[str, int], more: str, less: str) -> str:
    return f"{more} - {less} = {values[more]} - {values[less]} = {values[more] - values[less]}."


def _search(chart: Chart, kind: str, ask: Mapping[str, Any]) -> tuple[list[str], str]:
    """Working where a cell has to be found first: "which", "extreme", "hop", and the sum of a row."""
    values = asking.cells(chart)
    inside = asking.row(chart, ask["row"]) if "row" in ask else values
    if kind == "row_sum":
        numbers = " + ".join(str(value) for value in inside.values())
        return [f"{' + '.join(inside)} = {numbers} = {sum(inside.values())}."], ""
    if kind == "which":
        names = [name for name, value in inside.items() if value == ask["number"]] or ["none"]
        others = [f"{name} {value}" for name, value in inside.items() if name not in names]
        return [f"{names[0]} {ask['number']}."], f"{', '.join(others)}." if others else ""
    table = chart["kind"] == "table"
    size = ("largest" if ask["high"] else "smallest") if table else ("tallest" if ask["high"] else "lowest")
    best = asking.extreme(inside, ask["high"])
    where = f" in row {ask['row']}" if table else ""
    work = [f"The {size}{where} is {best.split()[-1]} with {values[best]}."]
    sign = "<" if ask["high"] else ">"
    check = ", ".join(f"{name} {sign} {best}" for name, value in inside.items() if value != values[best]) + "."
    if kind == "hop":
        end = asking.hop(chart, ask)
        if not table:
            work.append(f"{ask['side'].capitalize()} of {best} is {end}. {end} {values[end]}.")
        else:
            work.append(f"{end} {values[end]}.")
    return work, check if len(check) > 1 else ""
