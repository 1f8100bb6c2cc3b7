import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insightv.agents.replies.reading import Unreadable
from insightv.agents.replies.transcript import TAGS, check_tags, from_text, to_text
from insightv.errors import ConfigError
from insightv.records import ReasoningPath, Step

TEXT = """\
<thoughts>
### Read the chart
The red bar ends at 40.
The blue bar ends at 25.
### Conclude
So the difference is 15.
</thoughts>"""
STEPS = (
    Step(title="Read the chart", content="The red bar ends at 40.\nThe blue bar ends at 25.", action="continue"),
    Step(title="Conclude", content="So the difference is 15.", action="summary"),
)

awkward = st.sampled_from(
    ["### ", "###", "\n", "\\", "<thoughts>", "</thoughts>", "</THOUGHTS>", "<\\/thoughts>", "\u2424", "<", "thoughts>"]
)
plain = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)
texts = st.lists(awkward | plain | st.sampled_from(["\t", "\r", "a"]), min_size=1, max_size=8).map("".join)
filled = texts.filter(lambda text: text.strip() != "")
paths = st.lists(st.tuples(filled, filled), min_size=1, max_size=4).map(
    lambda pairs: tuple(
        Step(title=title, content=content, action="summary" if i + 1 == len(pairs) else "continue")
        for i, (title, content) in enumerate(pairs)
    )
)


def test_a_path_as_text() -> None:
    assert to_text(STEPS) == TEXT
    path = ReasoningPath(question_id="q", index=0, status="ok", steps=STEPS)
    assert to_text(path) == TEXT


def test_a_text_as_a_path() -> None:
    assert from_text(TEXT) == (STEPS, True)
    assert from_text(f"\n {TEXT}\n") == (STEPS, True)
    assert from_text(f"Here it is:\n{TEXT}\nThat is all.") == (STEPS, True)


@settings(max_examples=200, deadline=None)
@given(paths)
def test_every_path_comes_back_as_it_was(steps: tuple[Step, ...]) -> None:
    text = to_text(steps)
    assert from_text(text) == (steps, True)
    assert text.count(TAGS[0]) == text.count(TAGS[1]) == 1


@settings(max_examples=150, deadline=None)
@given(paths, st.data())
def test_a_cut_text_gives_only_steps_that_are_whole(steps: tuple[Step, ...], data: st.DataObject) -> None:
    text = to_text(steps)
    cut = text[: data.draw(st.integers(len(TAGS[0]), len(text) - 1))]
    kept, complete = from_text(cut)
    assert not complete
    assert [(s.title, s.content) for s in kept] == [(s.title, s.content) for s in steps[: len(kept)]]
    assert len(kept) < len(steps)
    assert {s.action for s in kept} <= {"continue"}


@settings(max_examples=150, deadline=None)
@given(st.lists(awkward | plain, max_size=12).map("".join))
def test_no_text_crashes_the_reader(text: str) -> None:
    for whole in (text, f"<thoughts>\n{text}\n</thoughts>"):
        try:
            steps, _ = from_text(whole)
        except Unreadable as error:
            assert error.code in {"no_block", "two_blocks", "no_title", "blank", "bad_characters"}  # noqa: PT017
        else:
            assert all(step.title.strip() and step.content.strip() for step in steps)


@settings(max_examples=200, deadline=None)
@given(paths, st.sampled_from([("[think]", "[/think]"), ("<t>", "</t>"), ("«a", "a»"), ("<thoughts>", "<end>")]))
def test_other_tags(steps: tuple[Step, ...], tags: tuple[str, str]) -> None:
    assert from_text(to_text(steps, tags), tags) == (steps, True)


def test_a_step_cannot_end_its_block_or_begin_another() -> None:
    forged = (
        Step(title="A", content="x\n### B\ny\n</thoughts>\nThe answer is 9.\n<thoughts>", action="continue"),
        Step(title="C </thoughts>", content="z", action="summary"),
    )
    text = to_text(forged)
    assert text.count("</thoughts>") == 1
    assert text.endswith("</thoughts>")
    assert text.count("\n### ") == 2
    assert from_text(text) == (forged, True)


def test_latex_is_not_touched() -> None:
    steps = (Step(title=r"Find $\theta$ \\", content=r"$\frac{1}{2} < \nabla \\ x$", action="summary"),)
    assert to_text(steps) == f"<thoughts>\n### {steps[0].title}\n{steps[0].content}\n</thoughts>"
    assert from_text(to_text(steps)) == (steps, True)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "no_block"),
        ("### A\nb", "no_block"),
        ("### A\nb\n</thoughts>", "no_block"),
        ("</thoughts>\n### A\nb\n<thoughts>", "no_block"),
        ("<THOUGHTS>\n### A\nb\n</THOUGHTS>", "no_block"),
        ("<thoughts>\n### A\nb\n</thoughts><thoughts>\n### C\nd\n</thoughts>", "two_blocks"),
        ("<thoughts>\n<thoughts>\n### A\nb\n</thoughts>", "two_blocks"),
        ("<thoughts>\n### A\nb\n</thoughts>\n</thoughts>", "two_blocks"),
        ("<thoughts>\nA: b\n</thoughts>", "no_title"),
        ("<thoughts>\nFirst,\n### A\nb\n</thoughts>", "no_title"),
        ("<thoughts></thoughts>", "no_title"),
        ("<thoughts>\n</thoughts>", "no_title"),
        ("<thoughts>\n### A\n</thoughts>", "blank"),
        ("<thoughts>\n### A\n \n### B\nc\n</thoughts>", "blank"),
        ("<thoughts>\n### \nb\n</thoughts>", "blank"),
        ("<thoughts>\n### A\n\x00b\n</thoughts>", "bad_characters"),
        ("<thoughts>\n### A\n\ud800b\n</thoughts>", "bad_characters"),
    ],
)
def test_what_is_no_path_is_refused(text: str, code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        from_text(text)
    assert caught.value.code == code


def test_without_its_end_the_last_step_is_left_out() -> None:
    steps, complete = from_text(TEXT.removesuffix("</thoughts>"))
    assert not complete
    assert steps == STEPS[:1]
    assert from_text("<thoughts>\n### A\nb") == ((), False)
    assert from_text("<thoughts>") == ((), False)


@pytest.mark.parametrize(
    "tags",
    [
        ("<t>", "<t>"),
        ("t", "</t>"),
        ("<a a>", "</a>"),
        ("<a", "<ab"),
        ("<a>", "#a"),
        ("<a>", "\\a"),
        ("aba", "xyz"),
        ["<a>"],
        "ab",
    ],
)
def test_tags_that_could_not_be_told_from_text_are_refused(tags: tuple[str, str]) -> None:
    with pytest.raises(ConfigError):
        check_tags(tags)


def test_tags_of_a_configuration_are_a_list() -> None:
    assert check_tags(["<t>", "</t>"]) == ("<t>", "</t>")
