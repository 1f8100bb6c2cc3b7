"""Tables of a few kB that come to gigabytes: refused in bounded memory. Large ones that are what they say are read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from insightv.inputs.questions import BadRows, read_questions

MB = 2**20
READ = """
import sys
import datasets
from insightv.errors import InputError
from insightv.inputs.questions import read_questions
from tests.memory import peak_kb

before = peak_kb()
try:
    print(len(read_questions(sys.argv[1])), "questions")
except InputError as error:
    print(str(error)[:1000])
print((peak_kb() - before) // 1024)
"""


def read(path: Path) -> tuple[str, int]:
    """What is said of a source, and by how many MB reading it makes a process larger."""
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said, _, peak = done.stdout.rstrip().rpartition("\n")
    return said, int(peak)


def numbered(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text]))


def zeros(count: int) -> pa.Array:
    return pa.nulls(count, pa.int8()).fill_null(0)


BOMBS = {
    "one text": lambda: pa.table({"question": ["a" * (300 * MB)]}),
    "many columns": lambda: pa.table({"question": ["x"], **{f"c{i}": ["a" * (20 * MB)] for i in range(40)}}),
    "a text by number": lambda: pa.table({"question": numbered("a" * (60 * MB), 8)}),
    "a list of a text by number": lambda: pa.table(
        {"question": ["x"], "images": pa.ListArray.from_arrays([0, 300], numbered("a" * (2 * MB), 300))}
    ),
    "a list of zeros": lambda: pa.table(
        {"question": ["x"], "meta": pa.ListArray.from_arrays([0, 60_000_000], zeros(60_000_000))}
    ),
    "rows without number": lambda: pa.table({"question": pa.nulls(120_000, pa.string())}),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_parquet_file_is_not_read_into_gigabytes(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    pq.write_table(BOMBS[kind](), path, compression="zstd", write_statistics=False, store_schema=False)
    assert path.stat().st_size < 50_000
    said, peak = read(path)
    assert "bad row" in said
    assert any(code in said for code in ("[too_large]", "[row_too_large]", "[missing]")), said
    assert peak < 400


def test_a_footer_that_tells_less_than_the_pages_is_not_believed(tmp_path: Path) -> None:
    """The sizes are taken from the pages' own headers, which the reader goes by."""
    path = tmp_path / "q.parquet"
    pq.write_table(pa.table({"question": ["a" * (200 * MB)]}), path, compression="zstd", write_statistics=False)
    whole = path.read_bytes()
    told = pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    number = bytes((2 * told >> shift) & 127 | 128 for shift in range(0, 28, 7)) + bytes([2 * told >> 28])
    assert number in whole[footer:]
    path.write_bytes(whole[:footer] + whole[footer:].replace(number, b"\xff\x80\x80\x80\x00"))
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size < told
    said, peak = read(path)
    assert "[too_large]" in said
    assert peak < 100


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_saved_dataset_that_is_compressed_is_not_unpacked(compression: str, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    datasets.Dataset.from_dict({"question": ["What?"]}).save_to_disk(str(folder))
    [path] = folder.glob("*.arrow")
    with pa.memory_map(str(path)) as source:
        schema = pa.ipc.open_stream(source).schema
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, schema, options=options) as writer:
        writer.write_table(pa.table({"question": ["a" * (400 * MB)]}).cast(schema))
    said, peak = read(folder)
    assert f"{path} is compressed" in said
    assert peak < 100


def test_a_saved_dataset_names_files_of_its_own_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    datasets.Dataset.from_dict({"question": ["What?"]}).save_to_disk(str(folder))
    [path] = folder.glob("*.arrow")
    path.rename(tmp_path / "other.arrow")
    state = folder / "state.json"
    state.write_text(state.read_text().replace(path.name, "../other.arrow"))
    said, _ = read(folder)
    assert "names the file '../other.arrow', outside of its folder" in said


def test_a_column_of_a_type_that_hides_its_size_is_named(tmp_path: Path) -> None:
    ends = pa.array([10**9], pa.int64())
    runs = pa.RunEndEncodedArray.from_arrays(ends, pa.array(["a"])).slice(0, 5)
    made = datasets.Dataset.from_dict({"question": ["What?"] * 5})
    made._data = datasets.table.InMemoryTable(pa.table({"question": ["What?"] * 5, "meta": runs}))
    with pytest.raises(BadRows, match=r"'meta' is of Arrow's type run_end_encoded.*\[bad_type\]"):
        read_questions(made)


def test_large_tables_that_are_what_they_say_are_read(tmp_path: Path) -> None:
    """Pages of 25 MB that hold pictures, texts with every size of page, lists and maps over several row groups."""
    noise = [os.urandom(MB) for _ in range(25)]
    rows = {
        "question": [f"What is in picture {i}?" for i in range(25)],
        "meta": [{"raw": "long " * 20_000, "counts": list(range(i)), "tags": [["a", "b"]] * i} for i in range(25)],
        "blob": noise,
        "pairs": pa.array([[("k", 1.5)] * i for i in range(25)], pa.map_(pa.string(), pa.float64())),
    }
    path = tmp_path / "q.parquet"
    for options in ({}, {"use_dictionary": False}, {"data_page_version": "2.0"}, {"row_group_size": 7}):
        pq.write_table(pa.table(rows).drop_columns(["blob"]), path, compression="zstd", **options)
        found = list(read_questions(path))
        assert [question.question for question in found] == rows["question"]
        assert [question.meta["counts"] for question in found] == [list(range(i)) for i in range(25)]
        assert [question.meta["tags"] for question in found] == [[["a", "b"]] * i for i in range(25)]
    pq.write_table(pa.table({"question": rows["question"], "images": [[]] * 25, "blob": noise}), path)
    assert len(read_questions(path)) == 25
