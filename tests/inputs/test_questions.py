"""Reading questions: every bad row is found and named, every good one is kept, in little memory."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from insightv.errors import ConfigError, InputError
from insightv.inputs.images import ImageLimits, check_image, open_question
from insightv.inputs.questions import BadRows, question_digest, read_questions
from insightv.records import Question

from . import defects, hostile

DEFECTS = list(defects.rows())
GOOD = 10_000 - len(DEFECTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = hostile.folder(tmp_path_factory.mktemp("questions"))
    (images / "hostile").mkdir()
    for name, data, _ in hostile.refused():
        (images / "hostile" / name).write_bytes(data)
    return images


def good(number: int) -> bytes:
    return defects.row(id=f"good {number}", question=f"What is {number}?", answer=number, level=[number])


@pytest.fixture(scope="module")
def large(folder: Path) -> Path:
    """10,000 rows; a defect in every fifth line at first, then good rows only."""
    lines = [good(number) for number in range(GOOD)]
    for index, (_, line, _, _) in enumerate(DEFECTS):
        lines.insert(5 * index, line)
    path = folder / "large.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def write(folder: Path, *lines: bytes, name: str = "q.jsonl", end: bytes = b"\n") -> Path:
    path = folder / name
    path.write_bytes(b"\n".join(lines) + end)
    return path


def codes(action: Callable[[], object]) -> list[tuple[int, str, str]]:
    with pytest.raises(BadRows) as caught:
        action()
    assert caught.value.exit_code == 2
    return [(row.line, row.field, row.code) for row in caught.value.rows]


def test_each_of_over_sixty_defects_is_named_in_one_reading(large: Path) -> None:
    assert len(DEFECTS) >= 60
    with pytest.raises(BadRows) as caught:
        read_questions(large, require_answer=True)
    found = {row.line: row for row in caught.value.rows}
    assert len(found) == len(caught.value.rows) == len(DEFECTS)
    for index, (name, line, field, code) in enumerate(DEFECTS):
        bad = found[5 * index + 1]
        assert (bad.field, bad.code) == (field, code), (name, str(bad))
        assert bad.text == line.decode("utf-8", "replace")[:2000]
        assert bad.reason
        assert str(bad).startswith(f"large.jsonl:{bad.line}: {bad.id or 'no id'}: ")
        assert str(bad).isprintable(), name
        assert len(str(bad)) < 600
    text = str(caught.value)
    assert f"large.jsonl: {len(DEFECTS)} bad rows" in text
    assert not re.search(r"0x[0-9a-f]{8,}|object at|Traceback", text)
    assert all(str(row) in text for row in caught.value.rows)


def test_skip_keeps_every_good_row(large: Path) -> None:
    found = read_questions(large, require_answer=True, bad_rows="skip")
    assert (len(found), len(found.bad), found.warnings) == (GOOD, len(DEFECTS), [])
    for _ in range(2):
        assert [question.id for question in found] == [f"good {number}" for number in range(GOOD)]
    question = next(iter(found))
    assert question.model_dump() == {
        "id": "good 0",
        "question": "What is 0?",
        "images": ("a.png",),
        "answer": "0",
        "answers": (),
        "choices": None,
        "meta": {"level": [0]},
    }
    assert open_question(question, root=found.root).pictures[0].width == 96


def test_all_faults_of_a_row_at_once(folder: Path) -> None:
    line = defects.row(question=" ", images=[7, "gone.png", "a.png", "../secret.png"], answer=[], choices="x", meta=3)
    assert codes(lambda: read_questions(write(folder, line))) == [
        (1, "choices", "wrong_type"),
        (1, "question", "blank"),
        (1, "images[0]", "wrong_type"),
        (1, "answer", "wrong_type"),
        (1, "meta", "wrong_type"),
        (1, "images[1]", "missing"),
        (1, "images[3]", "outside_root"),
    ]


def test_all_bad_rows_are_told_and_listed(folder: Path) -> None:
    path = write(folder, *(defects.row(id=f"q{number}", question="") for number in range(500)))
    with pytest.raises(BadRows) as caught:
        read_questions(path)
    assert len(caught.value.rows) == 500
    assert len(str(caught.value).splitlines()) == 501


def test_duplicates(folder: Path) -> None:
    first, other = good(1), defects.row(id="good 1", question="Something else?")
    found = read_questions(write(folder, first, b"", good(2), first))
    assert [question.id for question in found] == ["good 1", "good 2"]
    assert found.warnings == ["q.jsonl:4: good 1: the same as line 1; left out"]
    with pytest.raises(BadRows, match=r"q.jsonl:3: good 1: id: line 1 has the same id and another content"):
        read_questions(write(folder, first, good(2), other))
    with pytest.raises(BadRows, match="line 1 only in case or in Unicode form"):
        read_questions(write(folder, first, first.replace(b"good 1", b"GOOD 1")))
    composed, split = defects.row(id="caf\u00e9"), defects.row(id="cafe\u0301")
    assert codes(lambda: read_questions(write(folder, composed, split))) == [(2, "id", "id_collision")]
    bad_then_good = write(folder, defects.row(id="x", question=""), defects.row(id="x"))
    assert [question.id for question in read_questions(bad_then_good, bad_rows="skip")] == ["x"]


def test_the_same_row_with_another_picture_is_another_content(folder: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(folder / "red.png")
    Image.new("RGB", (32, 32), "red").save(folder / "red-too.png")
    Image.new("RGB", (32, 32), "blue").save(folder / "blue.png")
    red, again, blue = (defects.row(images=[name]) for name in ("red.png", "red-too.png", "blue.png"))
    same, blank = read_questions(write(folder, red, again)).warnings
    assert "the same as line 1" in same
    assert "2 rows have a picture of one colour throughout" in blank
    assert codes(lambda: read_questions(write(folder, red, blue))) == [(2, "id", "duplicate_id")]


def test_accepted_forms(folder: Path) -> None:
    path = write(
        folder,
        defects.row(id="a", images="a.png", answer="  7\n"),
        defects.row(id="b", images=..., image="a.png", answer=7.5),
        defects.row(id="c", images=[], answer=...),
        defects.row(id="d", images=None, answer=""),
        defects.row(id="e", choices=["x", 2], answer="(b)"),
        defects.row(id="f", choices=["x", "y"], answer="X "),
        defects.row(id="g", choices=["A", "B"], answer="B"),
        defects.row(id="h", choices=["x", "y", "z"], answer="A, C"),
        defects.row(id="k", question="Which? (A) red (B) dark blue", options=["red", "dark blue"], answer="B"),
        defects.row(id="l", options=["red", "dark blue"], num_options=2, answer="red"),
        defects.row(id="m", num_options=4, answer="B"),
        defects.row(id="i", choices=["x", "y", "z"], answer="BC"),
        defects.row(id="o", choices=["red", "dark  blue"], answer="(B) Dark blue"),
        defects.row(id="n", answer="B", correct_option="B. green", B=2, A=1),
        defects.row(id="train/0001.png", images=["inside.png", "./inner/b.png"]),
        defects.row(id="emoji \U0001f600", question="\U0001f600\n\tnaïve?"),
        end=b"",
    )
    found = {question.id: question for question in read_questions(path)}
    answers = ["7", "7.5", None, None, "(b)", "X", "B", "A, C", "B", "red", "B", "BC", "(B) Dark blue", "B", "7", "7"]
    assert [question.answer for question in found.values()] == answers
    assert [len(question.images) for question in found.values()] == [1, 1, 0, 0, *[1] * 10, 2, 1]
    assert found["e"].choices == ("x", "2")


@pytest.mark.parametrize(
    "id",
    [
        "train/12",
        "a/b/c.png",
        "chartqa:12",
        "3:17",
        "con1",
        "com",
        "com10",
        "console",
        "conin",
        "a.con",
        "U.S.",
        ".hidden",
        "a..b",
    ],
)
def test_ids_that_only_look_unsafe_are_kept(id: str, folder: Path) -> None:
    assert [question.id for question in read_questions(write(folder, defects.row(id=id)))] == [id]


def test_line_ends_marks_and_blank_lines(folder: Path) -> None:
    path = folder / "crlf.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + good(1) + b"\r\n\r\n  \n" + good(2) + b"\r\n")
    found = read_questions(path)
    assert len(found) == 2
    assert found.warnings == ["crlf.jsonl:1: begins with a byte order mark (byte offset 0); it is left out"]
    assert len(list(found)) == 2
    path.write_bytes(b"\xef\xbb\xbf" + good(1) + b"\n" + b'{"id": "\xff"}\n')
    with pytest.raises(BadRows) as caught:
        read_questions(path)
    offset = 3 + len(good(1)) + 1 + 8
    assert f"byte 0xff at byte offset {offset} " in caught.value.rows[0].reason
    assert path.read_bytes()[offset] == 0xFF


@pytest.mark.parametrize("cut", [1, 5, 30, 60])
def test_a_cut_last_line_is_called_that(cut: int, folder: Path) -> None:
    path = write(folder, good(1), good(2)[:-cut], end=b"")
    assert codes(lambda: read_questions(path)) == [(2, "", "cut_line")]
    half = write(folder, good(1), '{"id": "é'.encode()[:-1], end=b"")
    assert codes(lambda: read_questions(half)) == [(2, "", "cut_line")]


WHOLE = {
    "empty.jsonl": (b"", "empty_file"),
    "blank.jsonl": (b"\n \n", "empty_file"),
    "array.jsonl": (b"[" + good(1) + b"]", "json_document"),
    "pretty.jsonl": (json.dumps([json.loads(good(1))], indent=1).encode(), "json_document"),
    "lines.json": (b"[\n" + good(1) + b",\n" + good(2) + b"\n]\n", "json_document"),
    "one.json": (b"[\n" + good(1) + b"\n]\n", "json_document"),
    "long.json": (b"[\n" + (good(1) + b",\n") * 100 + good(2) + b"\n]\n", "json_document"),
    "inner.json": (b'{\n"data":\n' + good(1) + b"}\n", "json_document"),
    "object.json": (json.dumps(json.loads(good(1)), indent=1).encode(), "json_document"),
    "utf16.jsonl": (good(1).decode().encode("utf-16"), "utf16"),
    "cut.jsonl.gz": (gzip.compress(good(1) * 500)[:-9], "bad_gzip"),
    "damaged.jsonl.gz": (b"\x1f\x8b\x08" + bytes(50), "bad_gzip"),
    "empty.csv": (b"", "empty_file"),
    "twice.csv": (b"id,question,question\na,b,c\n", "bad_header"),
    "nameless.csv": (b"id,question,\na,b,c\n", "bad_header"),
    "semicolons.csv": (b"id;question\na;b\n", "missing_column"),
    "no-question.csv": (b"id,query\na,b\n", "missing_column"),
    "utf16.csv": ("id,question\na,b\n".encode("utf-16"), "utf16"),
    "text.parquet": (b"this is no parquet", "bad_parquet"),
    "empty.parquet": (b"", "bad_parquet"),
    "cut.parquet": (b"PAR1" + bytes(100), "bad_parquet"),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_a_source_that_is_wrong_as_a_whole_is_never_skipped(name: str, mode: str, folder: Path) -> None:
    content, code = WHOLE[name]
    (folder / name).write_bytes(content)
    found = codes(lambda: read_questions(folder / name, bad_rows=mode))  # type: ignore[arg-type]  # by name
    assert found[-1][2] == code


@pytest.mark.parametrize("name", ["gone.jsonl", "a.png", "pipe.png", "inner/nothing.csv"])
def test_no_questions_file(name: str, folder: Path) -> None:
    with pytest.raises(InputError, match=re.escape(Path(name).name)):
        read_questions(folder / name)


def test_gzip_is_read(folder: Path) -> None:
    path = folder / "q.jsonl.gz"
    path.write_bytes(gzip.compress(good(1) + b"\n" + good(2)))
    assert [question.id for question in read_questions(path)] == ["good 1", "good 2"]


CSV = """id,question,images,answer,choices,level
a,"What, ""now""?
And then?",a.png,B,"[""x"", ""y""]",3
b,Why?,"[""a.png"", ""inside.png""]",7,,
c,Text only?,,7,,
"""


def test_csv(folder: Path) -> None:
    path = folder / "q.csv"
    for text in (CSV, CSV.replace("\n", "\r\n"), "\ufeff" + CSV):
        path.write_bytes(text.encode())
        first, second, third = read_questions(path)
        assert first.question.replace("\r", "") == 'What, "now"?\nAnd then?'
        assert (first.choices, first.meta) == (("x", "y"), {"level": "3"})
        assert (second.images, third.images) == (("a.png", "inside.png"), ())


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_table_with_other_marks_than_commas_is_told_so(mark: str, folder: Path) -> None:
    path = folder / "marks.csv"
    path.write_text(f"id{mark}question\na{mark}b\n", encoding="utf-8")
    with pytest.raises(
        BadRows, match=re.escape(f"separated by commas here, not by {mark!r}: save the file with commas")
    ):
        read_questions(path)


def test_csv_faults(folder: Path) -> None:
    path = folder / "bad.csv"
    lines = [
        b"id,question,images,answer,choices",
        b"a,What?,a.png,7,",
        b"b,What?,a.png,7",
        b"c,What?,a.png,7,,extra",
        b"d,Wh\xe4t?,a.png,7,",
        b"e,,gone.png,7,",
        b'f,What?,"[""a.png""",7,',
        b'g,"What?"x,a.png,7,',
        b"h,What?,a.png,7,x;y",
        b"i,Wh\0t?,a.png,7,",
        b"j,What?,a.png,7,",
        b'k,"What?,a.png,7,',
    ]
    path.write_bytes(b"\n".join(lines))
    assert codes(lambda: read_questions(path)) == [
        (3, "", "bad_columns"),
        (4, "", "bad_columns"),
        (5, "", "invalid_utf8"),
        (6, "question", "blank"),
        (6, "images[0]", "missing"),
        (7, "images", "bad_json"),
        (8, "", "bad_csv"),
        (9, "choices", "wrong_type"),
        (10, "", "nul_byte"),
        (12, "", "cut_line"),
    ]
    assert [question.id for question in read_questions(path, bad_rows="skip")] == ["a", "j"]


def rows_of_csv(*lines: str, end: str = "\n") -> bytes:
    return ("\n".join(["id,question,answer", *lines]) + end).encode()


def test_a_quote_that_is_never_closed_costs_its_own_row(folder: Path) -> None:
    """Whether it takes in the rest of the file, more than a cell may hold, or the rows up to the next quote."""
    path = folder / "open.csv"
    good = [f"{number},What is {number}?,7" for number in range(12_000)]
    broken = 'bad,"What is this?,7'
    for at, count in ((11_990, 12_000), (10, 12_000), (0, 1), (1, 2)):
        lines = [*good[:at], broken, *good[at:count]]
        path.write_bytes(rows_of_csv(*lines))
        found = read_questions(path, bad_rows="skip")
        assert [question.id for question in found] == [str(number) for number in range(count)]
        assert [(row.line, row.code, row.text) for row in found.bad] == [(at + 2, "bad_csv", broken)]
    legal = 'legal,"Two\n\n""lines""?",7'
    path.write_bytes(rows_of_csv(good[0], broken, good[1], legal, broken, 'wide,"a\nb",c,d,e', good[2]))
    found = read_questions(path, bad_rows="skip")
    assert [question.id for question in found] == ["0", "1", "legal", "2"]
    assert [(row.line, row.code) for row in found.bad] == [
        (3, "bad_csv"),
        (8, "bad_csv"),
        (9, "bad_columns"),
        (10, "bad_columns"),
    ]
    assert "quotes join 3 lines" in found.bad[0].reason
    path.write_bytes(rows_of_csv(good[0], 'cut,"a\nb', end=""))
    assert codes(lambda: read_questions(path)) == [(3, "", "bad_csv"), (4, "", "cut_line")]


def test_quotes_that_are_wrong_throughout_are_given_up_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insightv.inputs.csv_file._MAX_READ_AGAIN", 2**20)
    path = folder / "wrong.csv"
    path.write_bytes(rows_of_csv(*(f'{number}","{"x" * 400}","' for number in range(1_000))))
    with pytest.raises(BadRows, match="quotes are opened and not closed in too many rows"):
        read_questions(path, bad_rows="skip")


def still(colour: str) -> bytes:
    return hostile.encoded(Image.new("RGB", (32, 24), colour), "PNG")


def test_parquet_with_bytes_and_paths(folder: Path) -> None:
    table = pa.table(
        {
            "query": ["What?", "Which?", None],
            "image": [{"bytes": still("red"), "path": None}, {"bytes": None, "path": "a.png"}, None],
            "label": [["7"], ["8"], ["9"]],
            "number": [1, 2, 3],
        }
    )
    path = folder / "q.parquet"
    pq.write_table(table, path)
    names = {"question": "query", "images": "image", "answer": "label", "id": "number"}
    assert codes(lambda: read_questions(path, columns=names)) == [(3, "question", "missing")]
    found = read_questions(path, columns=names, bad_rows="skip")
    first, second = (open_question(question, root=found.root) for question in found)
    assert [(question.id, question.answer, question.pictures[0].width) for question in (first, second)] == [
        ("1", "7", 32),
        ("2", "8", 96),
    ]
    with pytest.raises(BadRows, match=r"no column prompt; there are: image, label, number, query"):
        read_questions(path, columns={**names, "question": "prompt"})
    with pytest.raises(ConfigError, match="'questions' is not a field"):
        read_questions(path, columns={"questions": "query"})


@pytest.mark.parametrize("most", [0, 2**20])
def test_parquet_values_that_python_cannot_hold_cost_their_row(
    most: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insightv.inputs.arrow_rows._AT_ONCE", most)
    text = pa.array([b"good", b"\xff", b"good"]).view(pa.string())
    late = pa.array([0, 0, 10**9], pa.int32()).view(pa.date32())
    table = pa.table({"id": ["a", "b", "c"], "question": text, "day": late})
    path = folder / "odd.parquet"
    pq.write_table(table, path)
    assert codes(lambda: read_questions(path)) == [(2, "question", "invalid_utf8"), (3, "day", "bad_value")]
    assert [question.id for question in read_questions(path, bad_rows="skip")] == ["a"]


def test_numbers_of_any_size_are_answers_or_faults(folder: Path) -> None:
    path = write(folder, b'{"id": "big", "question": "How many?", "answer": 1' + b"0" * 400 + b"}")
    assert [question.answer for question in read_questions(path)] == ["1" + "0" * 400]
    rows: list[dict[str, object]] = [
        {"id": "a", "question": "How many?", "answer": 10**5000},
        {"id": "b", "question": "How many?", "meta": {"n": 10**5000}},
    ]
    assert codes(lambda: read_questions(rows)) == [(1, "answer", "wrong_type"), (2, "meta", "number_too_large")]


def test_a_set_without_ids_gets_them_from_the_content(folder: Path) -> None:
    path = folder / "no-ids.parquet"
    rows = [{"question": f"What {number}?", "images": ["a.png"]} for number in (1, 2, 1)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = read_questions(path)
    ids = [question.id for question in found]
    assert (len(set(ids)), len(found.warnings)) == (2, 1)
    pq.write_table(pa.Table.from_pylist(rows[1:]), path)
    assert sorted(question.id for question in read_questions(path)) == sorted(ids)
    lines = write(folder, *(json.dumps(row).encode() for row in rows))
    assert [question.id for question in read_questions(lines, columns={"id": "@content"})] == ids


def test_a_saved_dataset_is_read_without_decoding(folder: Path, tmp_path: Path) -> None:
    bomb = dict((name, data) for name, data, _ in hostile.refused())["png-9000x9000-compressible"]
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "question": datasets.Value("string"),
            "images": datasets.List(datasets.Image()),
            "answer": datasets.Value("string"),
        }
    )
    pictures = [[{"bytes": still("red"), "path": None}] * 2, [{"bytes": bomb, "path": None}]]
    columns = {"id": ["a", "b"], "question": ["What?"] * 2, "images": pictures, "answer": ["7"] * 2}
    saved = datasets.Dataset.from_dict(columns, features=features)
    both = datasets.DatasetDict({"train": saved, "test": saved})
    with pytest.raises(InputError, match="2 splits \\(train, test\\)"):
        read_questions(both)
    both.save_to_disk(tmp_path / "both")
    saved.save_to_disk(tmp_path / "one")
    with pytest.raises(InputError, match="train, test"):
        read_questions(tmp_path / "both")
    assert codes(lambda: read_questions(tmp_path / "one")) == [(2, "images[0]", "too_large_pixels")]
    found = read_questions(tmp_path / "one", bad_rows="skip")
    (question,) = (open_question(question, root=found.root) for question in found)
    assert [picture.width for picture in question.pictures] == [32, 32]
    with pytest.raises(InputError, match="not a saved dataset"):
        read_questions(folder / "inner")


def test_a_saved_dataset_with_text_that_is_not_utf8_loses_those_rows_only(tmp_path: Path) -> None:
    rows = {"id": ["a", "b", "c"], "question": ["x"] * 3, "extra": [{"k": 1}, [2], None]}
    features = {"id": datasets.Value("string"), "question": datasets.Value("string"), "extra": datasets.Json()}
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).save_to_disk(tmp_path)
    (file,) = tmp_path.glob("*.arrow")
    table = pa.ipc.open_stream(file.read_bytes()).read_all()
    spoilt = table.set_column(1, "question", pa.array([b"x", b"\xff", b"x"]).view(pa.string()))
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(spoilt.replace_schema_metadata(table.schema.metadata))
    found = read_questions(tmp_path, bad_rows="skip")
    assert [(question.id, question.meta["extra"]) for question in found] == [("a", {"k": 1}), ("c", None)]
    assert [(row.line, row.field, row.code) for row in found.bad] == [(2, "question", "invalid_utf8")]


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
@pytest.mark.parametrize("content", ["[]", "{}", "null", "", '{"_data_files": 7, "features": 7}'])
def test_a_saved_dataset_that_is_damaged_is_named(name: str, content: str, tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"id": ["a"], "question": ["x"]}).save_to_disk(tmp_path)
    (tmp_path / name).write_text(content)
    if (name, content) == ("dataset_info.json", "{}"):  # says nothing, and nothing false
        assert len(read_questions(tmp_path)) == 1
        return
    with pytest.raises(InputError, match="not a saved dataset, or a damaged one"):
        read_questions(tmp_path)


def test_questions_given_in_python(folder: Path) -> None:
    ready = Question(id="a", question="What?", images=(str(folder / "a.png"),), meta={"k": 1})
    opened = open_question(ready.model_copy(update={"id": "b"}))
    found = read_questions(question for question in (ready, opened))
    assert list(found) == [ready, opened]
    assert list(found) == [ready, opened]
    assert codes(lambda: read_questions([ready, {"id": "c"}, 7])) == [  # type: ignore[list-item]  # a slip
        (2, "question", "missing"),
        (3, "", "not_an_object"),
    ]
    outside = [ready.model_copy(update={"images": ("../secret.png",)})]
    assert codes(lambda: read_questions(outside, root=folder)) == [(1, "images[0]", "outside_root")]


def test_digest_is_of_the_content_and_not_of_the_order(folder: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(folder / "changing.png")
    lines = [defects.row(id=str(number), images=["changing.png"]) for number in range(3)]
    before = read_questions(write(folder, *lines))
    assert read_questions(write(folder, *reversed(lines))).digest == before.digest
    digests = dict((question.id, digest) for question, digest in read_questions(write(folder, *lines)).items())
    assert len(set(digests.values())) == 3
    changed = read_questions(write(folder, lines[0], lines[1], lines[2].replace(b'"7"', b'"8"')))
    assert changed.digest != before.digest
    assert sum(digests[question.id] != digest for question, digest in changed.items()) == 1
    Image.new("RGB", (32, 32), "blue").save(folder / "changing.png")
    assert read_questions(write(folder, *lines)).digest != before.digest
    opened = open_question(next(iter(before)), root=before.root)
    assert question_digest(opened) == question_digest(opened, [opened.pictures[0].sha256])
    assert question_digest(opened) != question_digest(opened.model_copy(update={"answer": "9"}))


def test_a_file_that_changes_meanwhile_is_noticed(folder: Path) -> None:
    path = write(folder, good(1), good(2), name="changing.jsonl")
    found = read_questions(path)
    write(folder, good(1), good(3), name="changing.jsonl")
    with pytest.raises(InputError, match="was changed while it was in use"):
        list(found)
    write(folder, good(1), name="changing.jsonl")
    with pytest.raises(InputError, match="was changed while it was in use"):
        list(found)


def test_limits_and_progress(folder: Path) -> None:
    path = write(folder, good(1), good(2))
    counts: list[int] = []
    read_questions(path, progress=counts.append, threads=1)
    assert counts == [1, 2]
    small = ImageLimits(max_source_pixels=1000)
    assert codes(lambda: read_questions(path, limits=small)) == [
        (1, "images[0]", "too_large_pixels"),
        (2, "images[0]", "too_large_pixels"),
    ]


def test_one_file_is_decoded_once_for_many_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[object] = []

    def counted(source: str | bytes, **options: object) -> object:
        checked.append(source)
        return check_image(source, **options)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr("insightv.inputs.row_checks.check_image", counted)
    names = ["a.png", "./a.png", "inside.png", "inner/b.png"]
    lines = [defects.row(id=str(number), images=[names[number % 4]]) for number in range(400)]
    read_questions(write(folder, *lines))
    assert len(checked) == 2


MEASURE = """
import sys
from pathlib import Path
from insightv.inputs.questions import BadRows, read_questions
try:
    found = read_questions(sys.argv[1], bad_rows="skip")
    print(len(found), sum(1 for _ in found), len(found.bad), [row.code for row in found.bad][:3])
except BadRows as error:
    print(len(error.rows), error.rows[0].code)
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def measured(path: Path) -> tuple[str, int]:
    """What a process of its own prints, and its peak in MB."""
    run = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    text, peak = run.stdout.splitlines()
    return text, int(peak) // 1000


def test_memory_does_not_grow_with_rows(folder: Path) -> None:
    text = "x" * 15_000
    with open(folder / "many.jsonl", "w") as file:
        for number in range(6_000):
            file.write(json.dumps({"id": f"q{number}", "question": f"{text}{number}", "images": ["a.png"]}) + "\n")
    text, peak = measured(folder / "many.jsonl")
    (folder / "many.jsonl").unlink()
    assert text == "6000 6000 0 []"
    assert peak < 120


def test_a_line_of_a_hundred_megabytes_is_not_held(folder: Path) -> None:
    path = folder / "long.jsonl"
    with open(path, "wb") as file:
        file.write(good(1) + b"\n" + b'{"question": "')
        for _ in range(100):
            file.write(b"x" * 10**6)
        file.write(b'"}\n' + good(2) + b"\n")
    text, peak = measured(path)
    path.unlink()
    assert text == "2 2 1 ['line_too_long']"
    assert peak < 250


def test_long_rows_are_held_one_at_a_time(folder: Path) -> None:
    """Text takes up to eight times as much as its line; a long line with images does not, whatever else is in it."""
    path = folder / "heavy.jsonl"
    texts = ["a" * (7 << 20), "\U0001f600" + "a" * (7 << 20)] * 4
    with open(path, "w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            print(json.dumps({"id": str(number), "question": "x", "extra": text}, ensure_ascii=False), file=file)
        print(json.dumps({"id": "over", "question": "x", "extra": "a" * (9 << 20)}), file=file)
    text, peak = measured(path)
    assert text == "8 8 1 ['line_too_long']"
    assert peak < 200
    with open(path, "w", encoding="utf-8") as file:
        image = "data:image/png;base64," + "a" * (20 << 20)
        for number in range(3):
            row = {"id": str(number), "question": "\U0001f600?", "images": [image]}
            print(json.dumps(row, ensure_ascii=False), file=file)
        print(json.dumps({"id": "good", "question": "x"}), file=file)
    text, peak = measured(path)
    path.unlink()
    assert text == "1 1 3 ['not_an_image', 'not_an_image', 'not_an_image']"
    assert peak < 200


def test_a_long_line_is_read_as_a_short_one_is(folder: Path) -> None:
    question = "\U0001f600 \u00e9\u4e2d \\ud83d \\u00e9"
    spaces = b" " * (2 << 20)
    lines = [
        spaces + json.dumps({"id": "a", "question": question}, ensure_ascii=False).encode(),
        b'{"id": "\xc3\xa9", "question": "x" ' + spaces + b",}",
        b'{"id": "b", "question": "\xc3\xa9\xff"}' + spaces,
        b'{"id": "c", "question": "\xc3\xa9\0"}' + spaces,
    ]
    path = write(folder, *lines, name="spaces.jsonl")
    found = read_questions(path, bad_rows="skip")
    assert [row.question for row in found] == [question]
    assert [(row.line, row.code) for row in found.bad] == [(2, "bad_json"), (3, "invalid_utf8"), (4, "nul_byte")]
    assert found.bad[0].text.startswith('{"id": "\u00e9", "question"')
    offset = path.read_bytes().index(b"\xff")
    assert f"byte 0xff at byte offset {offset} " in found.bad[1].reason
    path.unlink()


@pytest.mark.parametrize("first", [b"[1, 2]", b"[", b"{", b'["a"', b'[{"id": 1}]', b"[" * 100_000, b"[1, 2]\n[3]\n{"])
def test_a_first_row_that_is_wrong_costs_that_row_only(first: bytes, folder: Path) -> None:
    found = read_questions(write(folder, first, good(1), good(2), name="first.jsonl"), bad_rows="skip")
    assert [question.id for question in found] == ["good 1", "good 2"]
    assert {row.line for row in found.bad} == set(range(1, first.count(b"\n") + 2))


def test_many_large_bad_rows_do_not_fill_memory(folder: Path) -> None:
    path = folder / "bad.jsonl"
    with open(path, "w") as file:
        for number in range(20_000):
            file.write(json.dumps({"id": f"q{number}", "question": "", "extra": "x" * 3000}) + "\n")
    text, peak = measured(path)
    path.unlink()
    assert text == "20000 blank"
    assert peak < 200


def test_nothing_heavy_is_imported() -> None:
    heavy = ["PIL", "aiohttp", "pyarrow", "datasets"]
    program = f"import sys, insightv.inputs.questions; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
