from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset
from PIL.Image import Image

from insightv.assess.bands import AssessedQuestion
from insightv.errors import ConfigError
from insightv.records import Band, Message, Question, ReasoningPath, Score
from insightv.train.data.card import Origin
from insightv.train.data.export import export_paths, export_set
from insightv.train.data.sets import JudgedPaths, ReasonSet, RowSet, SummarySet

from .world import mixed, path, picture, prompt, question, render, run_of

ORIGIN = Origin(prompts={"step": "ab" * 32}, settings={"bands": {"high": 80}}, models={"generator": "openai/t"}, seed=3)
REASON = ReasonSet(prompt=prompt, best_per_question=2)
SUMMARY = SummarySet(render=render, total=20)
JUDGED = JudgedPaths(prompt=prompt)


def lines(file: Path) -> list[dict[str, object]]:
    def refuse(word: str) -> float:
        raise ValueError(f"not strict JSON: {word}")

    text = file.read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert len(text.splitlines()) == text.count("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def load(source: Path, cache: Path) -> Dataset:
    if source.is_dir():
        return load_dataset(str(source), split="train", cache_dir=str(cache))
    return Dataset.from_parquet(str(source), cache_dir=str(cache))


@pytest.mark.parametrize("spec", [REASON, SUMMARY, JUDGED], ids=lambda spec: spec.name)
def test_a_set_loads_with_datasets_as_trl_rows_with_real_images(spec: RowSet, tmp_path: Path) -> None:
    done = export_set(spec, run_of(10), tmp_path / "set", ORIGIN)
    data = load(tmp_path / "set", tmp_path / "cache")
    assert len(data) == done.rows > 0
    for row in data:
        blocks = [block for message in row["prompt"] for block in message["content"]]
        assert sum(block["type"] == "image" for block in blocks) == len(row["images"]) == 1
        assert isinstance(row["images"][0], Image)
        number = int(row["question_id"][1:])
        assert row["images"][0].convert("RGB").getpixel((0, 0)) == (number, 0, 77)
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        assert [message["role"] for message in row["completion"]] == ["assistant"]
        assert row["calls"] == [f"{row['question_id']}-{row['path']}-a", f"{row['question_id']}-{row['path']}-b"]
        assert row["model"] == "openai/teacher"
        assert row["seed"] == 100 + row["path"]
        assert (row["family"], row["source"], row["licence"]) == ("reasoning", "charts", "CC0")
        assert row["scores"][0]["scorer"] == "answer"
        assert "label" not in row or row["label"] is (row["band"] != "wrong")


def test_the_rows_of_a_set_are_the_same_in_every_form(tmp_path: Path) -> None:
    export_set(SUMMARY, run_of(10), tmp_path / "trl", ORIGIN, "trl")
    export_set(SUMMARY, run_of(10), tmp_path / "one.parquet", ORIGIN, "parquet")
    export_set(SUMMARY, run_of(10), tmp_path / "rows.jsonl", ORIGIN, "jsonl")
    folder, one = (
        load(tmp_path / name, tmp_path / "cache").remove_columns("images") for name in ("trl", "one.parquet")
    )
    written = lines(tmp_path / "rows.jsonl")
    images = [row.pop("images") for row in written]
    assert folder.to_list() == one.to_list() == written
    assert all((tmp_path / str(name)).is_file() for names in images if isinstance(names, list) for name in names)
    assert len(list((tmp_path / "rows.jsonl.images").iterdir())) == len({str(names) for names in images})


@pytest.mark.parametrize("spec", [REASON, SUMMARY, JUDGED], ids=lambda spec: spec.name)
def test_trl_collates_the_set_as_it_is(spec: RowSet, tmp_path: Path) -> None:
    # The very steps of TRL's collator for prompt and completion, up to the processor of a model.
    from trl.data_utils import is_conversational, prepare_multimodal_messages

    export_set(spec, run_of(4), tmp_path / "set", ORIGIN)
    for row in load(tmp_path / "set", tmp_path / "cache"):
        assert is_conversational(row)
        user = prepare_multimodal_messages(row["prompt"], images=row["images"])[1]
        assert isinstance(user["content"][0]["image"], Image)
        assert prepare_multimodal_messages(row["completion"])[0]["content"][0]["type"] == "text"


def test_pictures_are_stored_once_for_all_paths_of_a_question(tmp_path: Path) -> None:
    def heavy(number: int) -> AssessedQuestion:
        name = f"q{number}"
        shown = [picture(number, size=200, noise=True)]
        return AssessedQuestion(question(name, shown), tuple(path(name, i, Band.high, 90) for i in range(8)))

    done = export_set(ReasonSet(prompt=prompt, best_per_question=8), run_of(20, heavy), tmp_path / "set", ORIGIN)
    (file,) = (tmp_path / "set").glob("*.parquet")
    assert done.rows == 160
    assert done.funnel.picture_count == 20
    assert file.stat().st_size < 1.1 * done.funnel.picture_bytes + 50_000


def test_groups_of_rows_stay_small_and_files_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from insightv.train.data import parquet

    monkeypatch.setattr(parquet, "GROUP_BYTES", 200_000)
    monkeypatch.setattr(parquet, "FILE_BYTES", 500_000)

    def heavy(number: int) -> AssessedQuestion:
        return mixed(number, images=[picture(number, size=100, noise=True)])

    done = export_set(REASON, run_of(40, heavy), tmp_path / "set", ORIGIN)
    files = sorted((tmp_path / "set").glob("train-*.parquet"))
    assert len(files) > 2
    for file in files:
        meta = pq.ParquetFile(file).metadata
        assert all(meta.row_group(i).total_byte_size < 300_000 for i in range(meta.num_row_groups))
        assert file.stat().st_size < 800_000
    data = load(tmp_path / "set", tmp_path / "cache")
    assert len(data) == done.rows == 80
    assert data["question_id"][:3] == ["q0", "q0", "q1"]


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_set(SUMMARY, run_of(10), tmp_path / name, ORIGIN)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert first == second
    assert set(first) == {"README.md", "train-00000.parquet"}


def test_an_empty_set_is_written_and_loads(tmp_path: Path) -> None:
    def nothing(number: int) -> AssessedQuestion:
        return AssessedQuestion(question("q", []), (path("q", 0, None, code="timeout"),))

    assert export_set(REASON, run_of(1, nothing), tmp_path / "set", ORIGIN).rows == 0
    table = pq.read_table(tmp_path / "set" / "train-00000.parquet")
    assert table.num_rows == 0
    assert "completion" in table.column_names


def test_sets_of_two_runs_and_of_one_run_built_again_are_told_apart_by_datasets(tmp_path: Path) -> None:
    folders, cache = [tmp_path / run / "datasets" / "reason" for run in ("one", "two")], tmp_path / "cache"
    for folder, count in zip(folders, (3, 5), strict=True):
        export_set(ReasonSet(prompt=prompt), run_of(count), folder, Origin())
    assert [len(load(folder, cache)) for folder in folders] == [3, 5]
    export_set(ReasonSet(prompt=prompt), run_of(4), folders[0], Origin())
    assert len(load(folders[0], cache)) == 4


def test_text_questions_and_several_images_stand_together(tmp_path: Path) -> None:
    def some(number: int) -> AssessedQuestion:
        return mixed(number, images=[picture(10 * number + i) for i in range(number)])

    export_set(REASON, run_of(3, some), tmp_path / "set", ORIGIN)
    data = load(tmp_path / "set", tmp_path / "cache")
    assert [len(row["images"]) for row in data] == [0, 0, 1, 1, 2, 2]
    shown = [image.convert("RGB").getpixel((0, 0)) for image in data[4]["images"]]
    assert shown == [(20, 0, 77), (21, 0, 77)]


def test_paths_for_reading_hold_every_path_with_the_keys_of_the_contract(tmp_path: Path) -> None:
    done = export_paths(run_of(5), "jsonl", tmp_path / "paths.jsonl")
    rows = lines(tmp_path / "paths.jsonl")
    assert len(rows) == done.rows == 40
    for row in rows:
        keys = "question_id path status code steps answer scores band model seed usage"
        assert set(keys.split()) <= set(row)
    assert Counter(row["status"] for row in rows) == {"ok": 30, "rejected": 5, "failed": 5}
    assert Counter(row["band"] for row in rows) == {"high": 10, "mid": 5, "low": 5, "wrong": 5, "unscored": 5, None: 10}
    bad = rows[6]
    assert (bad["code"], bad["steps"], bad["answer"], bad["scores"]) == ("malformed", [], None, [])
    good = rows[0]
    assert good["steps"] == [
        {"title": "Look", "content": "q0 path 0: the bar is at 4.", "action": "continue"},
        {"title": "Conclude", "content": "So the answer is 4.", "action": "summary"},
    ]
    assert good["scores"] == [
        {"scorer": "answer", "value": None, "accepted": True, "reason": "rule"},
        {"scorer": "path", "value": 85.0, "accepted": True, "reason": ""},
    ]
    assert good["score_details"] == [{}, {"logic": 80, "odd": None}]
    assert good["usage"] == {"prompt_tokens": 10, "cached_tokens": 0, "completion_tokens": 5, "requests": 3}


def test_paths_as_parquet_are_the_same_rows(tmp_path: Path) -> None:
    export_paths(run_of(5), "jsonl", tmp_path / "paths.jsonl")
    export_paths(run_of(5), "parquet", tmp_path / "paths.parquet")
    table = Dataset.from_parquet(str(tmp_path / "paths.parquet"), cache_dir=str(tmp_path / "cache")).to_list()
    for row in table:
        row["score_details"] = [json.loads(text) for text in row["score_details"]]
    assert table == lines(tmp_path / "paths.jsonl")


def test_hostile_texts_stay_strict_json_and_one_line(tmp_path: Path) -> None:
    texts = ["\ud800 lone", "line\u2028end\u2029\x85\n\r\x00", "</script><image>", '"quoted" \\ {answer}']
    odd = {"nan": float("nan"), "set": {2, 1}, "big": 10**30, "deep": [{"x": float("-inf")}], "object": object}

    def hostile(number: int) -> AssessedQuestion:
        item = path("q", number, Band.high, 90, text=texts[number])
        score = Score(scorer=texts[number], value=90, accepted=True, reason=texts[number], details=odd)
        return AssessedQuestion(question(f"q{number}", []), (type(item)(item.path, (score,), Band.high),))

    for form in ("jsonl", "parquet"):
        export_paths(run_of(4, hostile), form, tmp_path / f"paths.{form}")
    rows = lines(tmp_path / "paths.jsonl")
    contents = [row["steps"][0]["content"] for row in rows if isinstance(row["steps"], list)]
    assert contents == ["\ufffd lone", *texts[1:]]
    details = rows[0]["score_details"]
    assert isinstance(details, list)
    assert details[0] | {"object": ""} == {
        "nan": None,
        "set": [1, 2],
        "big": 10**30,
        "deep": [{"x": None}],
        "object": "",
    }
    assert pq.read_table(tmp_path / "paths.parquet").num_rows == 4


def chat(rows: list[dict[str, object]], turns: str, role: str, text: str) -> Iterator[tuple[list[str], str, list[str]]]:
    """What a reader of the other programs sees of each row: roles, all text, images."""
    for row in rows:
        told, images = row[turns], row["images"]
        assert isinstance(told, list)
        assert isinstance(images, list)
        yield [turn[role] for turn in told], "".join(turn[text] for turn in told), images


@pytest.mark.parametrize("form", ["llamafactory", "swift"])
@pytest.mark.parametrize("spec", [REASON, SUMMARY, JUDGED], ids=lambda spec: spec.name)
def test_other_programs_find_a_place_for_every_image_and_none_too_many(spec: RowSet, form: str, tmp_path: Path) -> None:
    def tricky(number: int) -> AssessedQuestion:
        images = [picture(10 * number + i) for i in range(number % 3)]
        whole = mixed(number, images=images)
        asked = whole.question.model_copy(update={"question": "Does <image> or <video> say <cot-process>?"})
        return AssessedQuestion(asked, whole.paths)

    out = tmp_path / "out"
    done = export_set(spec, run_of(6, tricky), out, ORIGIN, form)
    if form == "llamafactory":
        info = json.loads((out / "dataset_info.json").read_text(encoding="utf-8"))[f"insightv_{spec.name}"]
        assert info["formatting"] == "sharegpt"
        rows = lines(out / info["file_name"])
        columns, tags = info["columns"], info["tags"]
        seen = list(chat(rows, columns["messages"], tags["role_tag"], tags["content_tag"]))
        user, assistant, system = tags["user_tag"], tags["assistant_tag"], tags["system_tag"]
    else:
        rows = lines(out / f"{spec.name}.jsonl")
        seen = list(chat(rows, "messages", "role", "content"))
        user, assistant, system = "user", "assistant", "system"
    assert len(rows) == done.rows > 0
    for roles, text, images in seen:
        assert roles == [system, user, assistant]
        assert text.count("<image>") == len(images)
        assert "<video>" not in text
        assert "<cot-process>" not in text
        assert all((out / name).is_file() for name in images)
    if spec.name == "paths":
        assert {row["label"] for row in rows} == {True, False}
    assert len(load_dataset("json", data_files=str(next(out.glob("*.jsonl"))), cache_dir=str(tmp_path / "c"))["train"])


def test_a_prompt_that_other_programs_cannot_take_is_refused(tmp_path: Path) -> None:
    def twice(asked: Question, shown: ReasoningPath) -> list[Message]:
        return [Message(role="user", content="a"), Message(role="user", content="b")]

    with pytest.raises(ConfigError, match="user, user, assistant"):
        export_set(SummarySet(render=twice), run_of(1), tmp_path / "out", ORIGIN, "swift")
    assert list(tmp_path.iterdir()) == []


def test_unknown_forms_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'csv'.*jsonl, parquet, trl, llamafactory, swift"):
        export_set(REASON, run_of(1), tmp_path / "x", ORIGIN, "csv")
    with pytest.raises(ConfigError, match="jsonl or parquet, not 'trl'"):
        export_paths(run_of(1), "trl", tmp_path / "x")


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = (
        "import sys, insightv.train.data.export; "
        "print([m for m in ('torch', 'datasets', 'pyarrow', 'trl', 'PIL', 'yaml', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
