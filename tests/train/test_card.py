from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import yaml

from insightv.assess.bands import AssessedQuestion
from insightv.records import Band
from insightv.train.data.card import Layout, Origin, card, cell
from insightv.train.data.export import export_set
from insightv.train.data.funnel import Funnel
from insightv.train.data.sets import ReasonSet, SummarySet

from .world import mixed, path, picture, prompt, question, render, run_of

EVIL = [
    "---\nlicense: mit\n---\n# Owned",
    "a: b\n- c # d",
    "| cut | table |\n|---|---|",
    "![x](https://evil.example/x.png) <script>alert(1)</script>",
    "\x1b[31mred\x00\u2028\ud800",
    "=HYPERLINK(1)",
    "'\"{[&*!%@`",
    "x" * 5000,
]


def header(text: str) -> dict[str, object]:
    found = re.match(r"---\n(.*?\n)---\n", text, re.S)
    assert found
    facts = yaml.safe_load(found[1])
    assert isinstance(facts, dict)
    return facts


def test_the_card_tells_every_count_and_where_rows_come_from(tmp_path: Path) -> None:
    origin = Origin(prompts={"step": "ab" * 32}, settings={"bands": {"high": 80}}, models={"judge": "openai/j"}, seed=7)
    spec = SummarySet(render=render, mix={"high": 0.5, "wrong": 0.5}, total=40)
    export_set(spec, run_of(10), tmp_path / "summary", origin)
    text = (tmp_path / "summary" / "README.md").read_text(encoding="utf-8")
    facts = header(text)
    told = facts["insightv"]
    assert isinstance(told, dict)
    assert told["paths"] == {"total": 80, "ok": 60, "rejected": 10, "failed": 10}
    assert told["codes"] == {"malformed": 10, "timeout": 10}
    assert told["bands"] == {"high": 20, "mid": 10, "low": 10, "wrong": 10, "unscored": 10}
    assert told["rows_wanted_by_band"] == {"high": 20, "mid": 0, "low": 0, "wrong": 20}
    assert told["rows_by_band"] == {"high": 20, "wrong": 10}
    assert sum(told["left_out"].values()) + told["rows"] == 80
    assert told["prompts"] == {"step": "ab" * 32}
    assert (told["seed"], told["models"]) == (7, {"judge": "openai/j"})
    for words in (
        "| wrong | 10 | 20 | 10 | 10 fewer than asked for: no more to draw |",
        "| charts | CC0 | 30 |",
        "| malformed | 10 |",
        "| setting bands.high | 80 |",
        f"| prompt step, SHA-256 | {'ab' * 32} |",
        "| openai/teacher | 30 |",
    ):
        assert words in text


def test_hostile_names_break_neither_the_header_nor_the_tables(tmp_path: Path) -> None:
    def evil(number: int) -> AssessedQuestion:
        name = EVIL[number]
        item = path("q", 0, Band.high, 90)
        item = dataclasses.replace(item, path=item.path.model_copy(update={"model": name}))
        bad = path("q", 1, None, code=name)
        asked = question(f"q{number}", [picture(number)], meta={"source": name, "license": name, "family": name})
        return AssessedQuestion(asked, (item, bad))

    names = {name: name for name in EVIL}
    origin = Origin(prompts=names, settings={name: {name: name} for name in EVIL}, models=names, seed=1)
    for form in ("trl", "swift"):
        out = tmp_path / form
        done = export_set(ReasonSet(prompt=prompt), run_of(len(EVIL), evil), out, origin, form)
        assert done.rows == len(EVIL)
        text = (out / "README.md").read_text(encoding="utf-8")
        assert header(text)["license"] == "other"
        assert text.count("\n---\n") == 1
        body = text.split("\n---\n", 1)[1]
        assert "<script" not in body
        assert "![" not in body
        assert "https://" not in body
        assert "\x1b" not in body
        for row in re.findall(r"^\|.*$", body, re.M):
            assert row.endswith(" |")
            assert len(row) < 1500
        widths = [len(re.findall(r"(?<!\\)\|", row)) for row in re.findall(r"^\|.*$", body, re.M)]
        assert set(widths) <= {3, 4, 6}
        assert not re.search(r"^# Owned", body, re.M)


def test_a_cell_shows_text_as_it_is() -> None:
    assert cell("a|b") == r"a\|b"
    assert cell("<b>") == "&lt;b&gt;"
    assert cell("a\nb") == "a b"


def test_thousands_of_sources_do_not_make_an_endless_card() -> None:
    def own_source(number: int) -> AssessedQuestion:
        whole = mixed(number)
        asked = whole.question.model_copy(update={"meta": {"source": f"s{number}"}})
        return AssessedQuestion(asked, whole.paths)

    funnel = Funnel()
    for row in ReasonSet(prompt=prompt).rows(run_of(1000, own_source), funnel):
        funnel.wrote(row)
    text = card("reason", funnel, {}, Origin(), Layout({}))
    assert len(funnel.sources) == 201
    assert sum(funnel.sources.values()) == 1000
    assert len(text) < 10_000
