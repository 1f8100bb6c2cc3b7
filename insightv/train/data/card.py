"""The card of a data set: how every row came to be, in a form that people and the Hugging Face hub read.

Names and texts in it come from models, servers and data files, so every one is escaped, on one line and cut.
The same set gives the same card: there is no date in it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from insightv import __version__
from insightv.records import Band
from insightv.strict_json import Json, clean, plain
from insightv.train.data.funnel import Funnel

_MARKS = re.compile(r"([\\`*_\[\]|!#~$])")
_MOST_LISTED = 50


@dataclass(frozen=True)
class Origin:
    """What a set's card says beyond its counts, as known to the run.

    `prompts` maps names of prompts to their hashes, `settings` is the configuration as resolved, without secrets;
    `models` maps roles to models.
    """

    prompts: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True)
class Layout:
    """How the rows lie in the folder: what each column or file holds."""

    columns: Mapping[str, str]


_TITLES = {
    "reason": "Reason set: what a reasoning agent learns to write",
    "summary": "Summary set: what a summary agent learns to judge by",
    "direct": "Direct set: what one model alone learns to reason and answer in one reply",
    "multi-turn": "Multi-turn set: what one model alone learns to reason in one turn and answer in the next",
    "paths": "Paths of reasoning, judged right or wrong",
    "preference": "Pairs of paths, one better than the other",
    "external": "Pairs of replies, one better than the other, as somebody else's data gave them",
}
_ABOUT = {
    "reason": "Each row is one path of reasoning from the high band: its answer was judged right and its steps good. "
    "The prompt is what the reasoning agent is shown, the completion is the path in its text format.",
    "summary": "Each row shows a question and one path, good or flawed, and the completion is the true answer as the "
    "data gave it. Rows without a path are general image-question data.",
    "direct": "A baseline. Each row is one path of the reason set, and below it the true answer as the data gave it: "
    "loss on both, in one reply.",
    "multi-turn": "A baseline. Two rows for each path of the reason set: its first turn (the path), and the whole "
    "conversation up to the second reply (the true answer). The loss is on a row's last reply only; programs that take "
    "it on every turn learn the path twice (LLaMA-Factory: set mask_history; ms-swift: loss_scale last_round).",
    "paths": "Each row is one path, right or wrong by its answer (`label`), in TRL's form for unpaired preferences.",
    "preference": "Each row holds two paths that one model wrote about one question: the chosen one right and of the "
    "high band, the rejected one wrong (which counts as 0 points) or lower by at least the margin.",
    "external": "Each row holds two replies to one question as a file of preference data gave them. Nobody scored or "
    "graded them here: every margin stands at 100.",
}
_LIMITS = (
    "Paths were written by a model and judged by rules and models; a right answer can stand on wrong steps.",
    "Paths that no scorer could judge, and those that were rejected or failed, are left out, never guessed.",
    "Scores are those of the judge named in the settings; they do not compare across judges.",
    "Pictures are as they were sent to the models: upright, without metadata, scaled down to the configured size.",
    "Licences are repeated as given by whoever supplied the questions; nobody checked them.",
)


def card(name: str, funnel: Funnel, chosen: Mapping[str, object], origin: Origin, layout: Layout) -> str:
    """The card of the set `name`: a YAML header for machines, then the same for people."""
    parts = [f"---\n{_header(name, funnel, chosen, origin)}---\n", f"# {_TITLES.get(name, name)}\n"]
    parts += [f"{_ABOUT.get(name, '')}\n", "## From questions to rows\n", _funnel_table(funnel)]
    parts += ["## Rows by band\n", _band_table(funnel)]
    parts += ["## Paths left out\n", _counts("reason", funnel.left_out)]
    parts += ["## Paths rejected or failed, by code\n", _counts("code", funnel.codes)]
    if funnel.general:
        parts += ["## General data\n", _counts("count of", funnel.general)]
    if funnel.lengths:
        parts += [
            "## Lengths of chosen and rejected replies, in characters\n",
            _table(("what", "value"), funnel.lengths.items()),
        ]
    parts += ["## Sources and licences, as given\n", _sources(funnel)]
    parts += ["## Models that wrote the paths\n", _counts("model", funnel.models)]
    parts += ["## How it was made\n", _made(chosen, origin)]
    columns = "".join(f"- {columns}: {text}\n" for columns, text in layout.columns.items())
    parts += ["## Files and columns\n", columns, "## Limits\n", "".join(f"- {line}\n" for line in _LIMITS)]
    return "\n".join(parts)


def _header(name: str, funnel: Funnel, chosen: Mapping[str, object], origin: Origin) -> str:
    import yaml

    facts: dict[str, object] = {"pretty_name": f"insightv {name} set", "license": "other"}
    facts |= {"task_categories": ["image-text-to-text"], "tags": ["insightv", "visual-reasoning"]}
    # No `configs`: with them `datasets` looks at neither path nor content, and would show its cache of any other set
    # whose folder has the same name. It finds `train-*.parquet` by itself.
    facts["insightv"] = {
        "set": name,
        "version": __version__,
        "seed": origin.seed,
        "rows": funnel.row_count,
        "questions": funnel.questions,
        "paths": {"total": funnel.paths, **{name: funnel.statuses[name] for name in ("ok", "rejected", "failed")}},
        "codes": _sorted(funnel.codes),
        "bands": _sorted(funnel.bands),
        "rows_by_band": _sorted(funnel.rows),
        "rows_wanted_by_band": dict(funnel.wanted),
        "left_out": _sorted(funnel.left_out),
        "general": _sorted(funnel.general),
        "pictures": funnel.picture_count,
        "models": dict(origin.models),
        "prompts": dict(origin.prompts),
        "chosen": dict(chosen),
        **({"lengths": dict(funnel.lengths)} if funnel.lengths else {}),
    }
    return str(yaml.safe_dump(_one_line(plain(facts)), sort_keys=False, allow_unicode=True, width=2**31))


def _one_line(value: Json) -> Json:
    if isinstance(value, str):
        return line(value)
    if isinstance(value, list):
        return [_one_line(inner) for inner in value]
    if isinstance(value, dict):
        return {line(key): _one_line(inner) for key, inner in value.items()}
    return value


def line(text: str) -> str:
    """The text on one line, without characters that do not print, of at most 300 characters."""
    text = "".join(char if char.isprintable() else " " for char in clean(text))
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:299] + "…"


def cell(value: object) -> str:
    """The value as Markdown that shows it as it is: no link, picture, table or markup of its own."""
    text = html.escape(line(str(value)), quote=False)
    return _MARKS.sub(r"\\\1", text).replace("://", ":&#47;/").replace("www.", "www&#46;").replace("@", "&#64;")


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([cell(value) for value in row] for row in rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts) if counts[name]}


def _counts(what: str, counts: Mapping[str, int]) -> str:
    found = sorted(((count, name) for name, count in counts.items() if count), key=lambda pair: (-pair[0], pair[1]))
    if not found:
        return "None.\n"
    rest = sum(count for count, _ in found[_MOST_LISTED:])
    rows = [(name or "(not given)", count) for count, name in found[:_MOST_LISTED]]
    return _table((what, "number"), rows + ([("all others", rest)] if rest else []))


def _funnel_table(funnel: Funnel) -> str:
    scored = sum(count for band, count in funnel.bands.items() if band != "unscored")
    rows: list[tuple[str, int]] = [("questions", funnel.questions), ("paths", funnel.paths)]
    rows += [(f"paths {status}", funnel.statuses[status]) for status in ("ok", "rejected", "failed")]
    rows += [("paths with a band", scored), ("rows of paths", funnel.rows.total())]
    rows += [("rows of general data", funnel.general["rows"]), ("rows", funnel.row_count)]
    rows += [("different pictures in them", funnel.picture_count), ("bytes of those", funnel.picture_bytes)]
    return _table(("stage", "number"), rows)


def _band_table(funnel: Funnel) -> str:
    bands = [band for band in Band if funnel.bands[band] or band in funnel.wanted]
    rows = [
        (band, funnel.bands[band], funnel.wanted.get(band, "-"), funnel.rows[band], _short(funnel, band))
        for band in bands
    ]
    return _table(("band", "paths", "rows asked for", "rows", "note"), rows)


def _short(funnel: Funnel, band: str) -> str:
    missing = funnel.wanted.get(band, 0) - funnel.rows[band]
    return f"{missing} fewer than asked for: no more to draw" if missing > 0 else ""


def _sources(funnel: Funnel) -> str:
    found = sorted(funnel.sources.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [(source or "(not given)", licence or "(not given)", count) for (source, licence), count in found]
    rest = sum(count for *_, count in rows[_MOST_LISTED:])
    shown = rows[:_MOST_LISTED] + ([("all others", "", rest)] if rest else [])
    return _table(("source", "licence", "rows"), shown) if shown else "None.\n"


def _made(chosen: Mapping[str, object], origin: Origin) -> str:
    facts: list[tuple[object, object]] = [("insightv", __version__), ("seed of the run", origin.seed)]
    facts += [(f"{key} (this set)", value) for key, value in chosen.items()]
    facts += [(f"model of {role}", model) for role, model in sorted(origin.models.items())]
    facts += [(f"prompt {name}, SHA-256", digest) for name, digest in sorted(origin.prompts.items())]
    facts += [(f"setting {key}", value) for key, value in _flat(origin.settings)]
    return _table(("what", "value"), facts)


def _flat(settings: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found
