"""Control tokens in texts are texts: a question may say `<image>`, and a step quote an end of turn."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset, load_dataset

from insightv.assess.bands import AssessedQuestion
from insightv.records import Band
from insightv.train.data.card import Origin
from insightv.train.data.export import export_set
from insightv.train.data.sets import ReasonSet
from insightv.train.finetune.control_tokens import control_tokens, without_control_tokens
from insightv.train.finetune.models import load_processor
from insightv.train.finetune.preflight import Limits, check_rows

from .world import path, picture, prompt, question, run_of

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch and trl, about their own insides


def rows(folder: Path, text: str) -> Dataset:
    def item(number: int) -> AssessedQuestion:
        asked = question(f"q{number}", [picture(number)])
        asked = asked.model_copy(update={"question": f"{asked.question} {text if number == 1 else ''}"})
        return AssessedQuestion(asked, (path(asked.id, 0, Band.high, 90, text=f"Look {text}." if number == 2 else ""),))

    export_set(ReasonSet(prompt=prompt), run_of(4, item), folder / "set", Origin())
    return load_dataset(str(folder / "set"), split="train", cache_dir=str(folder / "cache"))


def test_a_text_with_a_place_for_a_picture_can_be_trained_on(base: Path, tmp_path: Path) -> None:
    processor, data = load_processor(base), rows(tmp_path, "<image>")
    assert {bad.code for bad in check_rows(data, processor, Limits()).bad} == {"placeholders"}
    plain = without_control_tokens(data, processor)
    assert check_rows(plain, processor, Limits()).bad == []
    assert plain.features == data.features
    assert "< image>" in str(plain[1]["prompt"])
    assert plain[0] == data[0]


def test_an_end_of_turn_in_a_reply_does_not_end_it(base: Path, tmp_path: Path) -> None:
    processor = load_processor(base)
    end = processor.tokenizer.eos_token
    plain = without_control_tokens(rows(tmp_path, end), processor)
    for row in plain:
        for name in ("prompt", "completion"):
            texts = [block["text"] or "" for turn in row[name] for block in turn["content"]]
            assert not any(end in text for text in texts)
    assert end in control_tokens(processor)


def test_rows_without_such_texts_are_left_as_they_are(base: Path, tmp_path: Path) -> None:
    processor, data = load_processor(base), rows(tmp_path, "<not a token>")
    assert without_control_tokens(data, processor) is data
