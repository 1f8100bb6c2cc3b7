"""A run's folder of somebody else's is data: nothing in it is followed out of it, waited for or believed unseen.

The sweep over every file, column and command is in `tests/chaos/test_strangers_folder.py`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import pytest

from insightv import InputError, load_run
from insightv.backends.checkpoints import MARKER, is_complete, mark, read_marker
from insightv.inputs.image_error import ImageError
from insightv.inputs.image_store import ImageStore
from insightv.report.pictures import album
from insightv.runs.database import connect
from insightv.runs.lock import RunLock
from tests.runs.strangers import SPOIL, change, columns, outside, run, unpack


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's run, unpacked once."""
    return unpack(tmp_path_factory.mktemp("kept")).parent


@pytest.fixture
def strange(kept: Path, tmp_path: Path) -> Path:
    """The stranger's run, to be spoiled."""
    shutil.copytree(kept / "run", tmp_path / "run")
    shutil.copytree(kept / "outside", tmp_path / "outside")
    return tmp_path / "run"


@pytest.mark.parametrize("kind", ["a link", "a FIFO", "a device", "of the other kind"])
@pytest.mark.parametrize(
    "name",
    ["run.db", "run.db-journal", "holder.json", "config.toml", "log.jsonl", "report.html", "images"],
)
def test_nothing_is_written_through_what_stands_in_a_files_place(
    strange: Path, name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (strange / name).touch() if not (strange / name).exists() else None
    SPOIL[kind](strange / name)
    before = outside(strange.parent)
    for command in ("build", "status", "report"):
        ended = run(capsys, command, "--run", strange)
        ended.check()
        if command == "build":
            assert ended.code == 2, ended.said
            assert name.partition("/")[0] in ended.said
    assert outside(strange.parent) == before


def test_a_link_to_the_holders_name_is_not_written_through(strange: Path, tmp_path: Path) -> None:
    (strange / "holder.json").symlink_to(tmp_path / "made.json")
    with pytest.raises(InputError, match=r"holder\.json.*is a link"):
        RunLock(strange).acquire()
    assert not (tmp_path / "made.json").exists()


@pytest.mark.parametrize("value", ["'x'", "x'ff00'", "9e999", "-1"])
def test_every_column_with_a_wrong_value_is_told_by_name(
    strange: Path, value: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    whole = (strange / "run.db").read_bytes()
    told = 0
    for table, column in columns(strange / "run.db"):
        (strange / "run.db").write_bytes(whole)
        connection = sqlite3.connect(strange / "run.db")
        with suppress(sqlite3.IntegrityError):  # a primary key, or the constraint of a table, has only what it may
            connection.execute(f"UPDATE OR IGNORE {table} SET {column} = {value}")
        connection.commit()
        connection.close()
        for args in (["status", "--json"], ["export", "--what", "paths", "--out", tmp_path / "out.jsonl"]):
            ended = run(capsys, *args, "--run", strange)
            assert ended.code in (0, 2), (table, column, ended.said)
            ended.check()
            if ended.code == 2:
                told += 1
                assert "damaged" in ended.said, (table, column, ended.said)
    assert told > 5


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("UPDATE questions SET state = 'dancing'", "'state' (of questions)"),
        ("UPDATE paths SET status = 'fine'", "'status' (of paths)"),
        ("UPDATE paths SET band = 'huge'", "'band' (of paths)"),
        ("UPDATE totals SET value = 9e999", "'value' (of totals)"),
        ("UPDATE totals SET value = 'many'", "'value' (of totals)"),
        ("DELETE FROM totals", "a figure of its status"),
        ("UPDATE scores SET record = x'7b', failed = 1", "a figure of its status"),
        ("UPDATE stages SET facts = '[1]'", "a stage of the training"),
        ('UPDATE stages SET facts = \'{"paths": "many"}\'', "a stage of the training"),
        ("UPDATE stages SET identity = '3'", "a stage of the training"),
        ("UPDATE laid_aside SET names = '{'", "a stage of the training"),
        ("INSERT INTO bad_rows VALUES ('{\"file\": 3}')", "a row that was left out"),
        ("UPDATE paths SET code = CAST(x'ff' AS TEXT)", "not UTF-8"),
        ("ALTER TABLE calls RENAME COLUMN seconds TO minutes", "calls has no column seconds"),
        ("DROP TABLE faults", "faults"),
        ("CREATE TRIGGER t AFTER UPDATE ON totals BEGIN DELETE FROM calls; END", "'t'"),
        ("CREATE VIEW v AS SELECT 1", "'v'"),
        ("CREATE INDEX i ON totals (hex(value))", "'i'"),
    ],
)
def test_what_is_damaged_is_named(strange: Path, sql: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    change(strange / "run.db", sql)
    ended = run(capsys, "status", "--run", strange)
    ended.check()
    assert ended.code == 2
    assert "damaged" in ended.said
    assert told in ended.said.replace("\n", " ")


def test_a_view_that_never_ends_is_not_asked(strange: Path, capsys: pytest.CaptureFixture[str]) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS seq FROM n"
    change(strange / "run.db", "DROP TABLE questions", f"CREATE VIEW questions AS {endless}")
    ended = run(capsys, "status", "--run", strange)
    ended.check()
    assert ended.code == 2
    assert "questions" in ended.said


def test_a_journal_that_names_a_file_removes_none(strange: Path, tmp_path: Path) -> None:
    mine = tmp_path / "outside" / "mine.txt"
    name = str(mine).encode()
    record = name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + bytes.fromhex("d9d505f920a163d7")
    (strange / "run.db-journal").write_bytes(bytes.fromhex("d9d505f920a163d7") + bytes(504) + bytes(4) + record)
    with pytest.raises(InputError, match="names another file"):
        load_run(strange)
    assert mine.exists()


def test_rows_of_a_whole_run_pass(strange: Path) -> None:
    connection = connect(strange / "run.db", read_only=True)
    for table, _ in columns(strange / "run.db"):
        assert connection.execute(f"SELECT * FROM {table}").fetchall() is not None
    connection.close()


@pytest.mark.parametrize("kind", ["a FIFO", "a device", "endless", "of the other kind"])
def test_a_marker_that_never_ends_is_named(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    mark(folder)
    SPOIL[kind](folder / MARKER)
    with pytest.raises(InputError, match=MARKER):
        read_marker(folder)


@pytest.mark.parametrize("name", ["/dev/zero", "../outside.bin", "a\0b"])
def test_a_marker_names_files_of_its_folder_only(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (folder / MARKER).write_text(json.dumps({"files": {name: empty}}))
    assert not is_complete(folder)


@pytest.mark.parametrize("kind", ["no picture", "of 400 megapixels", "a FIFO"])
def test_a_picture_that_is_none_is_named(tmp_path: Path, kind: str) -> None:
    data = _png(20000, 20000) if kind == "of 400 megapixels" else b"no picture"
    digest = hashlib.sha256(data).hexdigest()
    path = tmp_path / f"{digest}.png"
    path.write_bytes(data)
    if kind == "a FIFO":
        SPOIL[kind](path)
    with pytest.raises(ImageError, match=digest[:16]):
        ImageStore(tmp_path).get(digest)


def test_a_picture_that_ends_after_its_header_costs_the_report_that_picture(tmp_path: Path) -> None:
    data = _png(3000, 2000) + bytes(300_000)
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / f"{digest}.png").write_bytes(data)
    made = album([digest], ImageStore(tmp_path), 1_000_000)
    assert made.unreadable == 1
    assert "decoded" in made.images[0]["why"]


def _png(width: int, height: int) -> bytes:
    """The beginning of a picture of that size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    begin = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return begin + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
