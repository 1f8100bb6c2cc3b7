"""The parts of a report as one HTML file: its policy, its style and script, its sections, and the paths as JSON."""

from __future__ import annotations

import base64
import hashlib
import shlex
import time
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import orjson

from insightv import __version__
from insightv.report import sections
from insightv.report.heldout import evaluations, training
from insightv.report.markup import Html, el, esc, text
from insightv.report.pictures import Album
from insightv.report.reading import Findings
from insightv.report.sample import Shown, picture_digest


def page(found: Findings, chosen: Sequence[Shown], pictures: Album, folder: Path) -> bytes:
    """The whole file."""
    parts = [
        (sections.funnel(found), "funnel", "Funnel"),
        (sections.histograms(found), "lengths", "Scores and lengths"),
        (training(found), "training", "Training"),
        (evaluations(found), "evaluations", "Held-out"),
        (sections.costs(found), "costs", "Costs"),
        (sections.codes(found), "codes", "Rejected and failed"),
        (sections.bad_rows(found), "bad-rows", "Rows left out"),
        (sections.made(found), "made", "Settings"),
        (_browser(found, chosen, pictures, folder), "paths", "Paths"),
    ]
    body = el("main", *(part for part, *_ in parts))
    links = [el("a", name, href=f"#{place}") for part, place, name in parts if part is not None]
    style, script = _own("report.css"), _own("report.js")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", f"{found.name} · insightv report"),
        el("style", Html(style)),
    )
    whole = el("body", _header(found, links), body, _data(chosen, pictures), el("script", Html(script)))
    return b"<!doctype html>\n" + el("html", head, whole, lang="en").encode() + b"\n"


@cache
def _own(name: str) -> str:
    """A file of this package. The same bytes stand in the page and under the policy's hash."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    marks = [
        "'sha256-" + base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() + "'" for part in (script, style)
    ]
    return (
        f"default-src 'none'; script-src {marks[0]}; style-src {marks[1]}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _header(found: Findings, links: Sequence[Html]) -> Html:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    told = el("p", f"Run report of insightv {__version__}, written {when}", klass="note")
    return el("header", el("h1", text(found.name, 300)), told, el("nav", *links, aria_label="sections"))


def _browser(found: Findings, chosen: Sequence[Shown], pictures: Album, folder: Path) -> Html:
    """The place of the browser of paths, and what of the run is not in it."""
    return el(
        "section",
        el("h2", "Paths", id="paths"),
        *(sections.note(line) for line in _limits(found, chosen, pictures, folder)),
        el("noscript", el("p", "This part of the report needs JavaScript; the figures above do not.", klass="warning")),
        el("div", id="browser"),
        aria_labelledby="paths",
    )


def _limits(found: Findings, chosen: Sequence[Shown], pictures: Album, folder: Path) -> list[Html]:
    paths, run = sum(one.paths for one in chosen), shlex.quote(str(folder))
    lines = []
    if paths < found.tally.paths:
        more = f"insightv report --run {run} --max-paths {found.tally.paths} --max-mb 200"
        whole = f"insightv export --run {run} --what paths --out paths.jsonl"
        lines.append(
            el(
                "span",
                el("strong", f"{paths:,} of {found.tally.paths:,} paths are shown here: "),
                f"those of {len(chosen):,} questions, drawn evenly from {found.tally.questions:,}. The figures "
                "above count every path. To see more: ",
                el("code", text(more)),
                "; every path as a line of JSON: ",
                el("code", text(whole)),
            )
        )
    total = len(pictures.images)
    told = []
    if pictures.smaller:
        told.append(f"{pictures.smaller:,} of {total:,} pictures are shown smaller than they are")
    if pictures.left_out:
        told.append(f"{pictures.left_out:,} of {total:,} pictures are left out to keep this file small")
    if pictures.unreadable:
        told.append(f"{pictures.unreadable:,} of {total:,} pictures could not be read")
    if told:
        originals = ". The originals are in the folder images/ of the run, named by their SHA-256."
        lines.append(esc("; ".join(told) + originals))
    return lines


def _data(chosen: Sequence[Shown], pictures: Album) -> Html:
    """Pictures and questions as JSON; with no `<` in it, it cannot end its element or open a comment."""
    rows = []
    for one in chosen:
        places = [
            pictures.places[digest] if (digest := picture_digest(source)) else source[:200] for source in one.pictures
        ]
        rows.append(b'{"images":' + orjson.dumps(places) + b"," + one.data[1:])
    whole = b'{"images":' + orjson.dumps(pictures.images) + b',"questions":[' + b",\n".join(rows) + b"]}"
    safe = whole.replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
    return el("script", Html(safe.decode()), type="application/json", id="data")
