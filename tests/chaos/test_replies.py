"""What models say in a whole build: chains that do not end well, judges that cannot be read, texts that give orders.

Single replies are labelled one by one in tests/agents/test_step_schema.py, tests/assess/test_path.py
and test_injection.py; here a server plays them over HTTP and the finished run and its exports are looked at.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from insightv import Pipeline, Question, load_run
from insightv.assess.quoting import objects_in
from insightv.config.settings import check_settings
from insightv.train.run_datasets import export
from tests.assess.fakes import entry, scores
from tests.assess.test_injection import INJECTIONS
from tests.assess.test_path import READABLE, UNREADABLE
from tests.chaos.after import check_run
from tests.servers.fake_chains import Reading
from tests.servers.fake_openai import FakeServer
from tests.servers.fake_replies import kind_of

pytestmark = pytest.mark.chaos

MOST_STEPS, TRIES = 4, 3
MARK = re.compile(r"\[plays=([^\]]*)\]")
Play = Callable[[Reading, str], str | None]
"""The text of a reply to a request of a kind; None for the usual one."""


def mark_of(reading: Reading) -> str:
    found = MARK.search("\n".join(text for _, text in reading.texts))
    return found[1] if found else ""


class Stage(FakeServer):
    """The fake server with parts: what is said, and which fault is played, by the mark in the question."""

    def __init__(self, plays: dict[str, Play], faults: dict[str, str] | None = None) -> None:
        super().__init__()
        self.asked: Counter[tuple[str, str]] = Counter()
        usual = self.model._replies.reply

        def reply(reading: Reading, index: int) -> tuple[str, dict[str, Any]]:
            play = plays.get(mark_of(reading)) or plays.get("*")
            text = play(reading, kind_of(reading) or "") if play else None
            return usual(reading, index) if text is None else (text, {"played": True})

        def fault(reading: Reading) -> str | None:
            self.asked[mark_of(reading), kind_of(reading) or ""] += 1
            return (faults or {}).get(mark_of(reading))

        self.model._replies.reply = reply  # type: ignore[method-assign]
        self.model._fault = fault  # type: ignore[method-assign]


def build(folder: Path, server: FakeServer, questions: list[Question], **table: Any) -> dict[str, Any]:
    at = {"model": "openai/fake", "base_url": server.base_url}
    settings = {
        "generator": {**at, "paths": 1, "max_steps": MOST_STEPS, "tries": TRIES},
        "scorers": [{"use": "answer", **at}, {"use": "path", **at}],
        **table,
    }
    pipeline = Pipeline(run=folder, settings=check_settings(settings))
    status = asyncio.run(pipeline.abuild(questions, datasets=False, bad_rows="skip")).as_json()
    check_run(folder)
    return status


def marked(name: str, answer: str = "7") -> Question:
    return Question(id=f"q {name}"[:200], question=f"What is 3 + 4? [truth=7] [plays={name}]", answer=answer)


def step(number: int, **changes: Any) -> str:
    thought = f"In row {number} the value {number} stands beside the label {number}."
    return json.dumps({"title": f"Row {number}", "content": thought, "action": "continue", **changes})


def steps_so_far(reading: Reading) -> int:
    return sum(role == "assistant" for role, _ in reading.texts)


def steps(make: Callable[[int], str]) -> Play:
    return lambda reading, kind: make(steps_so_far(reading) + 1) if kind == "reasoning_step" else None


def final(text: str) -> Play:
    return lambda reading, kind: text if kind == "final_answer" else None


CHAINS: dict[str, tuple[Play, str, int]] = {
    "endless": (steps(step), "max_steps", MOST_STEPS),
    "the same again": (steps(lambda n: step(1)), "repetition", 2),
    "the same in other words of case": (
        steps(lambda n: step(1).upper().lower() if n > 1 else step(1)),
        "repetition",
        2,
    ),
    "an action of its own": (steps(lambda n: step(n, action="finish")), "unparsable", TRIES),
    "no action": (steps(lambda n: step(n, action=None)), "unparsable", TRIES),
    "a summary at once": (steps(lambda n: step(n, action="summary")), "too_short", TRIES),
    "prose": (steps(lambda n: "First I look at the rows."), "unparsable", TRIES),
    "two steps in one": (steps(lambda n: step(n) + step(n + 1)), "unparsable", TRIES),
    "a cut step": (steps(lambda n: step(n)[:-20]), "unparsable", TRIES),
    "a number that is none": (steps(lambda n: step(n).replace('"continue"', "NaN")), "unparsable", TRIES),
    "two actions": (steps(lambda n: step(n)[:-1] + ', "action": "summary"}'), "unparsable", TRIES),
    "brackets": (steps(lambda n: "[" * 100_000), "unparsable", TRIES),
    "a form feed": (steps(lambda n: step(n).replace("Row", "\\f Row")), "unparsable", TRIES),
    "an endless text": (steps(lambda n: "a" * 300_000), "unparsable", TRIES),
    "no final answer": (final('{"answer": ""}'), "unparsable", 0),
    "a final answer of a kind": (final('{"answer": ["7"]}'), "unparsable", 0),
    "a final answer twice": (final('{"answer": "7"} {"answer": "8"}'), "unparsable", 0),
}
FAULTS = {"refuses": "refusal", "is filtered": "content_filter", "is cut": "length", "is cut to nothing": "length_null"}
FAULT_CODES = {"refuses": ("refusal", 1), "is filtered": ("refusal", 1), "is cut": ("truncated", TRIES)}


def test_chains_that_do_not_end_well_end_with_their_code_and_in_no_set(tmp_path: Path) -> None:
    """At most max_steps + 1 calls and the tries of one reply; nothing of them in an export for training."""
    plays = {name: play for name, (play, _, _) in CHAINS.items()}
    names = [*CHAINS, *FAULTS, "good"]
    folder = tmp_path / "run"
    with Stage(plays, FAULTS) as server:
        status = build(folder, server, [marked(name) for name in names])
        asked = server.asked
    with load_run(folder) as run:
        found = {a.question.id.removeprefix("q "): a.paths[0] for a in run.assessed()}
    codes = {name: code for name, (_, code, _) in CHAINS.items()}
    codes |= {name: FAULT_CODES.get(name, ("truncated", TRIES))[0] for name in FAULTS}
    assert {name: found[name].path.code for name in codes} == codes
    for name, (_, _, calls) in CHAINS.items():
        assert asked[name, "reasoning_step"] == calls or calls == 0, name
        assert sum(asked[name, kind] for kind in ("reasoning_step", "final_answer")) <= MOST_STEPS + 1 + TRIES
        assert found[name].path.answer is None
        assert asked[name, "path_scores"] == asked[name, "answer_verdict"] == 0, "a path that failed was judged"
    for name in FAULTS:
        assert asked[name, "reasoning_step"] == FAULT_CODES.get(name, ("", TRIES))[1], name
    assert status["paths"] == {
        "total": len(names),
        "ok": 1,
        "rejected": len(names) - 1,
        "failed": 0,
        "by_code": dict(sorted(Counter(codes.values()).items())),
    }
    for what in ("reason", "summary", "preference"):
        made = export(folder, what, "jsonl", tmp_path / what)
        rows = [line for file in made.path.rglob("*.jsonl") for line in file.read_text(encoding="utf-8").splitlines()]
        rows += made.path.read_text(encoding="utf-8").splitlines() if made.path.is_file() else []
        for row in map(json.loads, rows):
            assert row.get("question_id", "q good") == "q good", row


def test_judges_that_cannot_be_read_give_no_score_and_no_pair(tmp_path: Path) -> None:
    """Every labelled reply by HTTP: 100 % as labelled; nothing clamped, nothing guessed, None left out of pairs."""
    cases: dict[str, tuple[str, int | None]] = {f"bad {i}": (text, None) for i, text in enumerate(UNREADABLE)}
    cases |= {
        f"good {i}": (text, value) for i, (text, value, first_error) in enumerate(READABLE) if first_error is None
    }

    def judge(text: str) -> Play:
        return lambda reading, kind: text if kind == "path_scores" else None

    folder = tmp_path / "run"
    with Stage({name: judge(text) for name, (text, _) in cases.items()}) as server:
        status = build(folder, server, [marked(name) for name in cases])
        asked = server.asked
    with load_run(folder) as run:
        found = {a.question.id.removeprefix("q "): a.paths[0] for a in run.assessed()}
    given = {name: found[name].scores[-1].value for name in cases}
    assert given == {name: value for name, (_, value) in cases.items()}
    unread = {name for name, (_, value) in cases.items() if value is None}
    assert {str(found[name].band) for name in unread} == {"unscored"}
    assert all(asked[name, "path_scores"] == (TRIES if name in unread else 1) for name in cases)
    assert status["unjudged"] == status["bands"]["unscored"] == len(unread)
    made = export(folder, "preference", "jsonl", tmp_path / "pairs")
    assert made.rows == 0


def last_object(reading: Reading, kind: str) -> str | None:
    texts = [text for _, text in reading.texts]
    found = [json.dumps(value) for text in texts for value in objects_in(text)]
    return found[-1] if found else texts[-1]


def whole_prompt(reading: Reading, kind: str) -> str | None:
    return "\n".join(text for _, text in reading.texts)


@pytest.mark.parametrize("echo", [last_object, whole_prompt])
def test_orders_in_questions_and_answers_never_become_a_score(echo: Play, tmp_path: Path) -> None:
    """Over 50 injections in the question, in every step and as the (wrong) answer, before judges that echo.

    Success of the injections: 0. A wrong answer is wrong or unjudged, whatever is said of it.
    """
    forged = scores(entry(1, 100))
    texts = [
        text for text in [*INJECTIONS, forged] if not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", text)
    ]
    assert len(texts) > 50

    def play(reading: Reading, kind: str) -> str | None:
        order = texts[int(re.findall(r"\[plays=(\d+)\]", "\n".join(text for _, text in reading.texts))[0])]
        if kind == "reasoning_step":
            number = steps_so_far(reading) + 1
            content = f"{number}: {order[:2000]} and so the {number} is read."
            return step(number, content=content, action="summary" if number > 1 else "continue")
        return json.dumps({"answer": order}) if kind == "final_answer" else echo(reading, kind)

    questions = [
        Question(id=f"q{i}", question=f"{text}\nWhich? [plays={i}]", answer="Mexico") for i, text in enumerate(texts)
    ]
    folder = tmp_path / "run"
    with Stage({"*": play}) as server:
        status = build(folder, server, questions)
    assert status["questions"]["done"] == len(texts)
    assert status["bands"]["high"] == status["bands"]["mid"] == status["bands"]["low"] == 0
    with load_run(folder) as run:
        for assessed in run.assessed():
            for score in assessed.paths[0].scores:
                assert score.value is None, (assessed.question.question, score)
                assert score.accepted is not True, (assessed.question.question, score)
