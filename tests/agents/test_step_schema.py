import json
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insightv.agents.replies.json_reply import read_object
from insightv.agents.replies.reading import Unreadable
from insightv.agents.step_schema import FINAL_SCHEMA, STEP_SCHEMA
from insightv.records import Step
from tests.agents.step_replies import GO, OTHER, ROWS, S, read_final, read_step

T = TypeVar("T")
LATEX = re.split(
    " ",
    r"\frac{1}{2} \times \theta \beta \rho \neq \nabla \text{cm} \sqrt{2} \alpha \Delta \forall \to \tau \boxed{5} "
    r"\bar{x} \rightarrow \notin \underline{a} \, \( \{",
)


def test_there_are_enough_labels() -> None:
    assert len(ROWS) >= 200
    assert len({what for what, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("reply", "expected"), [(r, e) for _, r, e in ROWS], ids=[w for w, _, _ in ROWS])
def test_labelled_reply(reply: str, expected: tuple[str, str, str] | str) -> None:
    if isinstance(expected, tuple):
        step = read_step(reply)
        assert (step.title, step.content, step.action) == expected
    else:
        with pytest.raises(Unreadable) as caught:
            read_step(reply)
        assert caught.value.code == expected, str(caught.value)


@pytest.mark.parametrize(
    ("reply", "rung", "mended"),
    [
        (S, "strict", False),
        (f"```json\n{S}\n```", "fence", False),
        (f"So: {S}", "prose", False),
        (f"So: ```json\n{S}\n```", "prose", False),
        (S.replace("bar is", "bar\nis"), "newlines", False),
        (S.replace('"', "'"), "repair", False),
        (S.replace("5", r"\frac{1}{2}"), "strict", True),
    ],
)
def test_the_rung_is_named(reply: str, rung: str, mended: bool) -> None:
    reading = read_object(reply)
    assert (reading.rung, reading.mended) == (rung, mended)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("blank", [" ", "\t", "\n", " \r\n", "`", "``", "-", "x"])
def test_a_long_reply_is_read_in_time_that_grows_with_it(blank: str) -> None:
    """Going back and forth over blanks, 200,000 of them take minutes."""
    for reply in (f"```json\n{blank * 100_000}x", f"```{blank * 100_000}", f"{blank * 100_000}{{{blank * 100_000}"):
        with pytest.raises(Unreadable):
            read_object(reply)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"answer": "15"}', "15"),
        ('{"answer": " B "}', "B"),
        ('{"answer": 15}', "15"),
        ('{"answer": -3}', "-3"),
        ('{"answer": 2.5}', "2.5"),
        ('{"answer": 0.0}', "0.0"),
        ('```json\n{"answer": "x"}\n```', "x"),
        (r'{"answer": "\frac{1}{2}"}', r"\frac{1}{2}"),
        ('{"answer": true}', "wrong_type"),
        ('{"answer": null}', "wrong_type"),
        ('{"answer": ["15"]}', "wrong_type"),
        ('{"answer": 1e30}', "wrong_type"),
        ('{"answer": 1e999}', "bad_number"),
        ('{"answer": NaN}', "bad_number"),
        ('{"answer": ""}', "blank"),
        ('{"answer": "15", "unit": "cm"}', "keys"),
        ('{"title": "FINAL ANSWER", "content": "15"}', "keys"),
        ('{"answer": "15"} {"answer": "16"}', "two_objects"),
        ('{"answer": "15', "cut"),
        ("15", "not_json"),
        ("", "empty"),
    ],
)
def test_final_answer(reply: str, expected: str) -> None:
    assert outcome(read_final, reply) == expected


def test_schemas_say_what_the_readers_take() -> None:
    assert STEP_SCHEMA.name == "reasoning_step"
    assert FINAL_SCHEMA.name == "final_answer"
    step = STEP_SCHEMA.definition
    assert step["required"] == ["title", "content", "action"] == list(step["properties"])
    assert step["properties"]["action"]["enum"] == ["continue", "summary"]
    assert FINAL_SCHEMA.definition["required"] == ["answer"]
    assert step["additionalProperties"] is False
    assert FINAL_SCHEMA.definition["additionalProperties"] is False


def outcome(read: Callable[[str], T], reply: str) -> T | str:
    """What is read, or the code of the refusal; anything but Unreadable is a crash."""
    try:
        return read(reply)
    except Unreadable as error:
        return error.code


def accepted(reply: str) -> Step | None:
    read = outcome(read_step, reply)
    return read if isinstance(read, Step) else None


def sound(step: Step) -> bool:
    texts = step.title + step.content
    return not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]|[\t\r][A-Za-z]", texts)


texts = st.text(min_size=1, max_size=60).filter(lambda text: text.strip() != "")
pieces = st.sampled_from(
    [*"{}[]\"'\\,:\n\t\x00", "NaN", "1e999", "```", "json", "title", "content", "action", "continue", "summary"]
) | st.sampled_from([S, OTHER, S[:40], '{"a": 1}', "\\frac", "\\u12", "\ud800", "\ufeff", "None", "// x"])


@settings(max_examples=500, deadline=None)
@given(st.lists(pieces | st.text(max_size=8), max_size=14).map("".join))
def test_nothing_crashes_and_nothing_bad_is_passed_on(reply: str) -> None:
    step = accepted(reply)
    assert step is None or sound(step)


@settings(max_examples=300, deadline=None)
@given(texts, texts, st.sampled_from(["continue", "summary"]), st.data())
def test_a_cut_reply_is_never_accepted(title: str, content: str, action: str, data: st.DataObject) -> None:
    whole = json.dumps({"title": title, "content": content, "action": action}, ensure_ascii=data.draw(st.booleans()))
    assert accepted(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None


@settings(max_examples=300, deadline=None)
@given(texts, texts, st.text(max_size=20))
def test_two_steps_are_never_accepted(one: str, other: str, between: str) -> None:
    first, second = (json.dumps({"title": "a", "content": text, "action": "continue"}) for text in (one, other))
    if one != other:
        assert accepted(first + between + second) is None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(LATEX) | st.sampled_from(["x", "5", "= 3", "bar"]), min_size=1).map(" ".join))
def test_latex_comes_through_whole(content: str) -> None:
    for written in (json.dumps(content)[1:-1], content):
        assert read_step('{"title": "a", "content": "' + written + '", "action": "continue"}').content == content


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.just("\n"), max_size=80))
def test_any_text_that_is_escaped_right_comes_through_or_is_refused(content: str) -> None:
    step = accepted(json.dumps({"title": "a", "content": content, "action": "continue"}))
    assert step is None or step.content == content.strip()


def test_fifty_thousand_damaged_replies() -> None:
    draw = random.Random(20261122)
    rows = [reply for _, reply, _ in ROWS if len(reply) < 400]
    marks = [*list("{}[]\"'\\,:` \n\t\x0c"), "NaN", "Infinity", "1e999", "\\f", "\\u", "```", "�"]
    kept = 0
    for _ in range(50_000):
        reply = draw.choice(rows)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(reply) + 1)
            match draw.randrange(4):
                case 0:
                    reply = reply[:at]
                case 1:
                    reply = reply[:at] + draw.choice(marks) + reply[at:]
                case 2:
                    reply = reply[:at] + reply[at + draw.randint(1, 5) :]
                case _:
                    reply = reply[at:] + reply[:at]
        step = accepted(reply)
        if step is not None:
            kept += 1
            assert sound(step)
    assert 0 < kept < 40_000


@pytest.mark.parametrize(
    "reply",
    [
        '{"' * 60_000,
        '{ "' * 60_000,
        '{ " { ' * 40_000,
        "{a:" * 60_000,
        "{ 5 " * 60_000,
        "{}" * 100_000,
        "{'a': '" + "b' " * 60_000 + "}",
        "{'a': " + "'b', " * 12_000 + "}",
        "```" * 80_000,
        '"' * 200_000,
        "\\" * 200_000,
        '{"a": "' + "\\" * 200_001 + '"}',
        '{"a": "' + "\\t" * 100_000 + '"}',
        S + " {" * 30 + "x" * 200_000,
    ],
)
def test_hostile_replies_cost_little(reply: str) -> None:
    begun = time.process_time()
    accepted(reply)
    assert time.process_time() - begun < 2


def test_a_step_is_read_as_one_object_only_one_level_deep() -> None:
    inner = json.dumps({"title": "b", "content": "c", "action": "summary"})
    step = read_step(json.dumps({"title": "a", "content": inner, "action": "continue"}))
    assert step.content == inner
    assert step.action == GO[2]
