"""The reader of growing text against the reader of whole text, cut at every place."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insightv.agents.replies.transcript import from_text, to_text
from insightv.agents.replies.transcript_stream import StepReader
from insightv.events import StepStarted, StepText
from insightv.records import Step

_TRICKY = st.lists(
    st.sampled_from(
        [
            "a",
            "Ö",
            " ",
            "\n",
            "### ",
            "#",
            "\\",
            "<thoughts>",
            "</thoughts>",
            "<\\/thoughts>",
            "</tho",
            "<",
            "\u2424",
            "\r",
        ]
    ),
    min_size=1,
    max_size=12,
).map("".join)
_STEP = st.tuples(_TRICKY, _TRICKY).filter(lambda pair: all(text.strip() for text in pair))


def read(pieces: list[str]) -> tuple[list[tuple[str, str]], StepReader]:
    reader, titles, contents = StepReader(), [], []
    for piece in pieces:
        for event in reader.feed(piece):
            if isinstance(event, StepStarted):
                titles.append(event.title)
                contents.append("")
                assert event.number == len(titles)
            else:
                assert isinstance(event, StepText)
                assert event.number == len(titles)
                contents[-1] += event.text
    return list(zip(titles, contents, strict=True)), reader


@settings(max_examples=300, deadline=None)
@given(
    st.lists(_STEP, min_size=1, max_size=3), st.lists(st.integers(0, 200), max_size=8), st.sampled_from(["", "Well. "])
)
def test_pieces_say_the_same_as_the_whole(pairs: list[tuple[str, str]], cuts: list[int], before: str) -> None:
    text = before + to_text([Step(title=title, content=content, action="continue") for title, content in pairs])
    expected = [(step.title.strip(), step.content.strip()) for step in from_text(text)[0]]
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for pieces in ([text[a:b] for a, b in pairwise(places)], list(text)):
        said, reader = read(pieces)
        assert said == expected
        assert [(step.title, step.content) for step in reader.steps] == expected


@pytest.mark.parametrize("end", range(0, 66, 3))
def test_only_whole_steps_of_a_cut_text_are_kept(end: int) -> None:
    text = "<thoughts>\n### One\nFirst.\n### Two\nSecond.\n### Three\nThird.\n</thoughts>"[:end]
    _, reader = read(list(text))
    assert len(reader.steps) == max(0, reader.started - 1)
    assert [step.content for step in reader.steps] == ["First.", "Second.", "Third."][: len(reader.steps)]


def test_a_step_is_told_as_soon_as_its_title_stands() -> None:
    reader = StepReader()
    assert reader.feed("<thoughts>\n### Look") == []
    assert reader.feed("\n") == [StepStarted(1, "Look")]
    assert reader.feed("The bar") == [StepText(1, "The bar")]
    assert reader.feed(" ends ") == [StepText(1, " ends")]
    assert reader.feed("at 7.\n##") == [StepText(1, " at 7.")]
    assert reader.feed("# Then\n") == [StepStarted(2, "Then")]


def test_what_is_no_block_tells_nothing() -> None:
    said, reader = read(["The answer is ", "7. ### No\nblock"])
    assert said == []
    assert not reader.steps


@pytest.mark.parametrize("much", ["<", "a\n", "<\\/thoughts>", "</though "])
def test_a_large_piece_takes_time_in_proportion(much: str) -> None:
    def seconds(count: int) -> float:
        reader, began = StepReader(), time.process_time()
        reader.feed(f"<thoughts>\n### Look\n{much * count}\n### End\nB.\n</thoughts>")
        assert len(reader.steps) == 2
        return time.process_time() - began

    seconds(1000)
    assert seconds(100_000) < 2
