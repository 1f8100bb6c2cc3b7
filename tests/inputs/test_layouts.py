"""Question files as they are published: read by their columns and types, or refused with the cure."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from insightv.inputs.questions import BadRows, QuestionFile, read_questions
from insightv.records import Question

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def drawn(shade: int = 30) -> bytes:
    image = Image.new("RGB", (64, 48), (shade, 90, 200))
    ImageDraw.Draw(image).rectangle((10, 10, 30, 40), fill=(250, shade, 10))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def picture(shade: int = 30) -> dict[str, object]:
    return {"bytes": drawn(shade), "path": "x.png"}


def parquet(folder: Path, *rows: Mapping[str, object]) -> Path:
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        held = any(isinstance(value, dict) and "bytes" in value for value in values)
        columns[name] = pa.array(values, type=_PICTURE if held or name.startswith("image_") else None)
    pq.write_table(pa.table(columns), folder / "q.parquet")
    return folder / "q.parquet"


def lines(folder: Path, *rows: Mapping[str, object]) -> Path:
    path = folder / "q.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{at}", **row}) + "\n" for at, row in enumerate(rows)))
    return path


def one(file: QuestionFile) -> Question:
    (question,) = file
    return question


def codes(source: Path | Sequence[Question], **options: object) -> list[str]:
    with pytest.raises(BadRows) as caught:
        read_questions(source, **options)  # type: ignore[arg-type]  # options of one call each
    return [row.code for row in caught.value.rows]


MMMU: dict[str, object] = {"id": "v_1", "question": "Which is steeper, <image 1> or <image 2>?", "image_1": picture(10)}
MMMU |= {"image_2": picture(20), "image_3": None, "answer": "B", "question_type": "multiple-choice"}


@pytest.mark.parametrize("options", ["['left', 'right']", ["left", "right"]])
def test_mmmu(tmp_path: Path, options: object) -> None:
    question = one(read_questions(parquet(tmp_path, MMMU | {"options": options})))
    assert (question.choices, question.answer, len(question.images)) == (("left", "right"), "B", 2)
    assert base64.b64encode(drawn(10)).decode() in str(question.images[0])


def test_mmmu_open_question_has_alternatives(tmp_path: Path) -> None:
    question = one(read_questions(parquet(tmp_path, MMMU | {"options": "[]", "answer": "['24/7', '3.429']"})))
    assert (question.choices, question.answer, question.answers) == (None, "24/7", ("3.429",))


def test_a_gap_in_numbered_images_is_refused(tmp_path: Path) -> None:
    row = MMMU | {"options": "[]", "image_2": None, "image_3": picture(40)}
    assert codes(parquet(tmp_path, row)) == ["missing"]


def test_mathvista_takes_the_picture_not_its_path(tmp_path: Path) -> None:
    row = {"pid": "7", "question": "How long?", "image": "images/7.jpg", "decoded_image": picture()}
    row |= {"choices": ["1", "2"], "answer": "2", "answer_type": "text"}
    question = one(read_questions(parquet(tmp_path, row), answer="text"))
    assert (question.id, question.answer, len(question.images)) == ("7", "2", 1)


def test_chartqa(tmp_path: Path) -> None:
    question = one(read_questions(parquet(tmp_path, {"image": picture(), "query": "Which year?", "label": ["2014"]})))
    assert (question.question, question.answer, question.answers) == ("Which year?", "2014", ())


def test_scienceqa_index_is_a_place_and_the_hint_is_asked(tmp_path: Path) -> None:
    row = {"image": picture(), "question": "How many?", "choices": ["1", "2", "3"], "answer": 2, "hint": "Legs.",
           "lecture": "", "solution": ""}  # fmt: skip
    question = one(read_questions(parquet(tmp_path, row)))
    assert (question.answer, question.question) == ("C", "Legs.\nHow many?")


def test_aokvqa(tmp_path: Path) -> None:
    row: dict[str, object] = {"image": picture(), "question_id": "a", "question": "What?", "choices": ["ramp", "sea"]}
    row |= {"correct_choice_idx": 1, "direct_answers": "['sea']"}
    assert one(read_questions(parquet(tmp_path, row))).answer == "B"


def test_ai2d_by_its_word(tmp_path: Path) -> None:
    row = {"question": "Which?", "options": ["1", "2", "3"], "answer": "1", "image": picture()}
    assert one(read_questions(parquet(tmp_path, row), layout="ai2d")).answer == "B"


@pytest.mark.parametrize("question", ["questionId", "question_id"])
def test_several_accepted_answers(tmp_path: Path, question: str) -> None:
    row = {question: "d", "question": "What?", "image": picture(), "answers": ["a b", "ab", "ab"]}
    found = one(read_questions(parquet(tmp_path, row)))
    assert (found.answer, found.answers) == ("ab", ("a b",))


def test_annotators_are_accepted_answers(tmp_path: Path) -> None:
    row = {"question": "What?", "answer": [{"answer": "yes", "answer_confidence": "maybe"}, {"answer": "sure"}]}
    found = one(read_questions(lines(tmp_path, row)))
    assert (found.answer, found.answers) == ("yes", ("sure",))


def test_mmbench_tsv_with_bare_base64(tmp_path: Path) -> None:
    cells = ["12", "Read the hint.", "Which?", "red", "blue", "", "", "B", base64.b64encode(drawn()).decode()]
    header = "index\thint\tquestion\tA\tB\tC\tD\tanswer\timage\n"
    (tmp_path / "q.tsv").write_text(header + "\t".join(cells) + "\n")
    question = one(read_questions(tmp_path / "q.tsv"))
    assert (question.id, question.choices, question.answer) == ("12", ("red", "blue"), "B")
    assert question.question == "Read the hint.\nWhich?"
    assert question.images[0] == "data:image/png;base64," + cells[-1]


@pytest.mark.parametrize("answers", [(1, 2), ("1", "7")])
def test_a_number_beside_choices_is_refused_in_every_row_alike(tmp_path: Path, answers: tuple[object, object]) -> None:
    rows = [{"question": "How many?", "choices": ["1", "2", "3", "4"], "answer": answers[0]}]
    rows += [{"question": "Which?", "choices": [f"c{at}" for at in range(8)], "answer": answers[1]}]
    assert codes(lines(tmp_path, *rows), bad_rows="skip") == ["index_or_text"] * 2
    assert next(iter(read_questions(lines(tmp_path, *rows), answer="index"))).answer == "B"


def test_labels_by_their_names(tmp_path: Path) -> None:
    features = datasets.Features(
        {"question": datasets.Value("string"), "answer": datasets.ClassLabel(names=["cat", "dog"])}
    )
    made = datasets.Dataset.from_dict({"question": ["Which?"], "answer": ["dog"]}, features=features)
    made.save_to_disk(str(tmp_path / "saved"))
    made.to_parquet(str(tmp_path / "q.parquet"))
    assert one(read_questions(tmp_path / "saved")).answer == "dog"
    assert one(read_questions(tmp_path / "q.parquet")).answer == "dog"


@pytest.mark.parametrize("name", ["media", "figure", "screenshot", "image_b64", "image_list"])
def test_a_column_of_pictures_is_not_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.png").write_bytes(drawn())
    assert codes(lines(tmp_path, {"question": "What?", name: "a.png"})) == ["other_name"]
    found = read_questions(lines(tmp_path, {"question": "What?", "image": "a.png", "other": "a.png"}))
    assert found.warnings == ["q.jsonl: 'other' holds pictures too, which are not looked at"]


def test_choices_and_images_in_columns_by_settings(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(drawn())
    row = {"question": "Which?", "first": "a.png", "second": "a.png", "x": "red", "y": "blue", "answer": "A"}
    columns = {"images": ("first", "second"), "choices": ("x", "y")}
    found = one(read_questions(lines(tmp_path, row), columns=columns))
    assert (found.images, found.choices) == (("a.png", "a.png"), ("red", "blue"))


@pytest.mark.parametrize("choices", [["FF", "ff", "Ff"], ["x\u00b2", "x2"], ["MW", "mW"], ["H\u2082O", "H2O"]])
def test_choices_may_differ_by_case_or_power(tmp_path: Path, choices: list[str]) -> None:
    row = {"question": "Which?", "choices": choices, "answer": choices[1]}
    found = one(read_questions(lines(tmp_path, row)))
    assert (found.choices, found.answer) == (tuple(choices), choices[1])


def test_damaged_base64_is_named(tmp_path: Path) -> None:
    text = base64.b64encode(drawn()).decode()[:-5]
    assert codes(lines(tmp_path, {"question": "What?", "image": text})) == ["bad_base64"]


def test_several_answers_given_in_python_are_kept() -> None:
    question = Question(id="q", question="What?", answer="red", answers=("orange",))
    assert one(read_questions([question])) == question
