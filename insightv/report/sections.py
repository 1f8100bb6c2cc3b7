"""What a report says of the run as a whole, as HTML that needs no script: funnel, histograms, costs, faults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from insightv.report.charts import bar, bins_of, histogram, median, shares
from insightv.report.format import clock
from insightv.report.markup import Html, el, facts, join, table, text
from insightv.report.reading import Findings
from insightv.strict_json import json_text

_MOST_ROWS = 200


def section(name: str, title: str, *parts: Html | None) -> Html:
    """A section with its heading, which links can name."""
    return el("section", el("h2", title, id=name), *parts, aria_labelledby=name)


def note(*parts: object) -> Html:
    """A paragraph of small print."""
    return el("p", *parts, klass="note")


def funnel(found: Findings) -> Html:
    """From questions to rows of the sets."""
    tally, questions = found.tally, found.status.questions
    rows = [_stage("questions", questions.total, questions.total, "")]
    rows.append(_stage("… done", tally.questions, questions.total, "of the questions"))
    if tally.verdicts:
        rows.append(_stage("… with a right path", tally.with_right, questions.total, "of the questions"))
    rows.append(_stage("… with a path in the high band", tally.with_high, questions.total, "of the questions"))
    rows.append(_stage("paths", tally.paths, tally.paths, ""))
    rows.append(_stage("… that came to an answer (ok)", tally.ok, tally.paths, "of the paths"))
    if tally.verdicts:
        rows.append(_stage("… with a right answer", tally.verdicts["right"], tally.paths, "of the paths"))
    rows.append(_stage("… in the high band", tally.outcomes["high"], tally.paths, "of the paths"))
    for name, count in found.sets.items():
        shown = count if isinstance(count, str) else f"{count:,}"
        rows.append([text(f"rows of the {name} set"), "", shown, ""])
    stages = table(["stage", "", "number", "share"], rows, numbers=2)
    outcomes = [el("h3", "What became of the paths"), shares(tally.outcomes)] if tally.paths else []
    return section("funnel", "From questions to data", _balance(found), stages, *outcomes, _verdicts(found))


def _stage(name: str, count: int, whole: int, of: str) -> list[object]:
    share = count / whole if whole else 0
    return [name, bar(share), f"{count:,}", f"{share:.1%} {of}" if of and whole else ""]


def _balance(found: Findings) -> Html | None:
    tally = found.tally
    if tally.questions < found.status.questions.total:
        return note(
            el("strong", "The run is not finished. "),
            f"{found.status.questions.total - tally.questions:,} questions are still open; paths are counted "
            "once their question is done.",
        )
    return None


def _verdicts(found: Findings) -> Html | None:
    tally = found.tally
    parts: list[Html] = []
    if tally.verdicts:
        right, wrong, unknown = (tally.verdicts[name] for name in ("right", "wrong", "unknown"))
        parts.append(note(f"Answers of ok paths: {right:,} right, {wrong:,} wrong, {unknown:,} could not be judged."))
    if tally.faulty:
        parts.append(note(f"In {tally.faulty:,} ok paths a scorer named a first faulty step."))
    if tally.unjudged:
        named = ", ".join(
            f"{scorer}{f' ({code})' if code else ''} {count:,}"
            for (scorer, code), count in sorted(tally.unjudged.items(), key=lambda pair: -pair[1])[:20]
        )
        parts.append(note("Scores that could not be given: ", text(named), "."))
    return join(parts) if parts else None


def histograms(found: Findings) -> Html | None:
    """Scores and lengths of ok paths, coloured by outcome."""
    tally, figures = found.tally, []
    if tally.scores:
        marks = {int(found.bands[name]): name for name in ("mid", "high") if name in found.bands}
        bins = bins_of(tally.scores, low=0, high=99, width=5)
        figures.append(_figure(histogram(bins, "scores of paths", "score (1 to 100)", marks), "Scores", tally.scores))
    for counts, title, axis in (
        (tally.steps, "Steps", "steps of a path"),
        (tally.characters, "Characters", "characters in a path's steps"),
    ):
        if counts:
            low = 0 if counts is tally.characters else min(value for value, _ in counts)
            bins = bins_of(counts, low=low)
            figures.append(_figure(histogram(bins, axis, axis), title, counts))
    if not figures:
        return None
    return section("lengths", "Scores and lengths", el("div", *figures, klass="figures"))


def _figure(chart: Html, title: str, counts: Any) -> Html:
    caption = f"{title} of {counts.total():,} ok paths; median {median(counts):,}"
    return el("figure", el("figcaption", caption), chart)


def costs(found: Findings) -> Html:
    """What the run took, as a whole and for each result."""
    status, tally = found.status, found.tally
    tokens = status.tokens
    cached = f"{tokens.cached:,}" + (f" ({tokens.cached / tokens.prompt:.1%})" if tokens.prompt else "")
    whole = facts(
        [
            ("requests", f"{status.requests:,}"),
            ("prompt tokens", f"{tokens.prompt:,}"),
            ("of them cached", cached),
            ("completion tokens", f"{tokens.completion:,}"),
            ("money", f"${status.usd:,.2f}" if status.usd else "no prices set"),
            ("time", clock(status.elapsed_s)),
        ]
    )
    each = [
        ("question done", tally.questions),
        ("path", tally.paths),
        ("path with a right answer", tally.verdicts["right"]),
    ]
    each.append(("path in the high band", tally.outcomes["high"]))
    rows: list[list[object]] = [
        [
            f"per {name}",
            f"{status.requests / count:,.1f}",
            f"{tokens.prompt / count:,.0f}",
            f"{tokens.completion / count:,.0f}",
            f"${status.usd / count:,.4f}" if status.usd else "-",
            f"{status.elapsed_s / count:,.2f} s",
        ]
        for name, count in each
        if count
    ]
    head = ["", "requests", "prompt tokens", "completion tokens", "money", "time"]
    per = table(head, rows, numbers=5, caption="All that was spent, divided") if rows else None
    again: list[list[object]] = [[text(kind, 200), f"{count:,}"] for kind, count in status.setbacks.items()]
    tries = table(["class", "tries"], again, numbers=1, caption="Tries that were made again") if again else None
    return section("costs", "What it took", whole, per, tries)


def codes(found: Findings) -> Html | None:
    """Rejected and failed paths by code, and calls that were not answered."""
    parts: list[Html] = []
    total = found.tally.paths
    if found.tally.codes:
        rows: list[list[object]] = [
            [text(code, 200), status, f"{count:,}", f"{count / total:.1%}"]
            for (status, code), count in found.tally.codes.most_common()
        ]
        parts.append(table(["code", "status", "paths", "share"], rows, numbers=2, caption="Paths by code"))
    if found.status.faults:
        rows = [[text(code, 200), f"{count:,}"] for code, count in found.status.faults.items()]
        parts.append(table(["code", "calls"], rows, numbers=1, caption="Calls that were not answered"))
        rows = [[text(one, 200), text(code, 200), text(message, 500)] for one, code, message in found.faults]
        last = table(["question", "code", "message"], rows)
        parts.append(el("details", el("summary", f"The last {len(rows)} of them"), last))
    if not parts:
        return None
    why = note(
        "A rejected path is the model's doing: its replies could not be used. A failed one never got its replies. "
        "Neither is counted as wrong, and nothing was made up in their place."
    )
    return section("codes", "Rejected and failed", why, el("div", *parts, klass="figures"))


def bad_rows(found: Findings) -> Html | None:
    """Rows of the questions file that were left out."""
    if not found.bad_rows:
        return None
    rows: list[list[object]] = [
        [
            text(f"{row.get('file')}:{row.get('line')}", 300),
            *(text(row.get(key), 300) for key in ("id", "field", "reason")),
        ]
        for row in found.bad_rows[:_MOST_ROWS]
    ]
    more = len(found.bad_rows) - len(rows)
    return section(
        "bad-rows",
        "Rows left out of the questions",
        note(f"{len(found.bad_rows):,} faults were found and their rows skipped, as asked for by --bad-rows skip."),
        table(["file:line", "id", "field", "reason"], rows),
        note(f"… and {more:,} more; see: insightv status --json") if more else None,
    )


def made(found: Findings) -> Html:
    """Models, settings, and under how many of them results were made."""
    last: Mapping[str, Any] = found.epochs[-1] if found.epochs else {}
    generator = last.get("generator", {})
    pairs: list[tuple[str, object]] = [("generator", text(generator.get("model") or generator.get("use") or "-", 300))]
    for scorer in last.get("scorers", {}).values():
        model = scorer.get("model")
        pairs.append((f"scorer {scorer.get('use', '')}", text(model or "no model", 300)))
    pairs += [(f"band {name} from", text(value)) for name, value in found.bands.items()]
    pairs += [("paths per question", text(generator.get("paths", "-"))), ("seed", text(last.get("seed", "-")))]
    more = len(found.epochs) - 1
    changed = note(
        f"The settings were changed {more} time{'s' if more > 1 else ''} during the run (--allow-change); questions "
        "finished before kept their results. The last settings are shown."
    )
    kept = json.dumps(json.loads(json_text(last)), indent=2, ensure_ascii=False)
    whole = el("details", el("summary", "All that results depend on"), el("pre", text(kept, 50_000)))
    return section("made", "How it was made", facts(pairs), changed if more > 0 else None, whole)
