"""Preference pairs in every format, read back by other eyes than ours."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset

from insightv.inputs.images import ImageStore
from insightv.records import PreferencePair, ReasoningPath
from insightv.train.data.card import Origin
from insightv.train.data.export import FORMATS, Exported, export_set
from insightv.train.data.pair_rows import PreferenceSet, to_json
from insightv.train.data.pairs import PairRule, select_pairs
from insightv.train.data.rows import Licence
from insightv.train.finetune.dpo_role import write_pairs

from .world import INSTRUCTION, mixed, picture, prompt, question, run_of

PAIRS = PreferenceSet(prompt=prompt, rule=PairRule(per_question=2, length_slack=None))


def write(form: str, out: Path) -> Exported:
    return export_set(PAIRS, run_of(6, lambda i: mixed(i, [picture(i), picture(i + 50)])), out, Origin(), form)


def rows_of(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_holds_every_pair(form: str, tmp_path: Path) -> None:
    done = write(form, tmp_path / "out")
    assert done.rows == 12
    used = done.funnel.paths - done.funnel.left_out.total()
    assert used == 6 * 4


def test_trl_rows_have_both_replies_and_their_lineage(tmp_path: Path) -> None:
    write("trl", tmp_path / "out")
    data = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert {"prompt", "chosen", "rejected", "images"} <= set(data.column_names)
    assert "completion" not in data.column_names
    for row in data:
        places = sum(block["type"] == "image" for turn in row["prompt"] for block in turn["content"])
        assert places == len(row["images"]) == 2
        better, worse = (row[name][0]["content"][0]["text"] for name in ("chosen", "rejected"))
        assert f"path {row['path']}" in better
        assert f"path {row['rejected_path']}" in worse
        assert row["band"] == "high"
        assert row["rejected_band"] in ("mid", "low", "wrong")
        assert row["margin"] >= 20
        assert row["rejected_calls"] == [f"{row['question_id']}-{row['rejected_path']}-{end}" for end in "ab"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Lengths of chosen and rejected" in card
    assert "guess by length" in card


def test_parquet_and_trl_hold_the_same_columns(tmp_path: Path) -> None:
    write("parquet", tmp_path / "one.parquet")
    write("trl", tmp_path / "folder")
    one = pq.read_table(tmp_path / "one.parquet")
    other = pq.read_table(next((tmp_path / "folder").glob("*.parquet")))
    assert one.column("margin").to_pylist() == other.column("margin").to_pylist()
    assert one.column_names == other.column_names


def test_jsonl_names_pictures_that_are_there(tmp_path: Path) -> None:
    write("jsonl", tmp_path / "pairs.jsonl")
    for row in rows_of(tmp_path / "pairs.jsonl"):
        assert isinstance(row["images"], list)
        assert all((tmp_path / name).is_file() for name in row["images"])


def test_llamafactory_ranks_the_two(tmp_path: Path) -> None:
    write("llamafactory", tmp_path / "out")
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())["insightv_preference"]
    assert info["ranking"] is True
    assert info["columns"]["chosen"] == "chosen"
    for row in rows_of(tmp_path / "out" / info["file_name"]):
        turns = row["conversations"]
        assert isinstance(turns, list)
        assert [turn["from"] for turn in turns] == ["system", "human"]
        assert sum(turn["value"].count("<image>") for turn in turns) == len(row["images"]) == 2  # type: ignore[arg-type]
        chosen, rejected = row["chosen"], row["rejected"]
        assert isinstance(chosen, dict)
        assert isinstance(rejected, dict)
        assert chosen["from"] == rejected["from"] == "gpt"
        assert chosen["value"] != rejected["value"]


def test_swift_has_the_worse_reply_beside_the_conversation(tmp_path: Path) -> None:
    write("swift", tmp_path / "out")
    for row in rows_of(tmp_path / "out" / "preference.jsonl"):
        turns = row["messages"]
        assert isinstance(turns, list)
        assert [turn["role"] for turn in turns] == ["system", "user", "assistant"]
        assert row["rejected_response"] != turns[-1]["content"]
        assert sum(turn["content"].count("<image>") for turn in turns) == 2


def test_ids_tell_the_pairs_of_a_question_apart(tmp_path: Path) -> None:
    write("swift", tmp_path / "out")
    ids = [row["id"] for row in rows_of(tmp_path / "out" / "preference.jsonl")]
    assert len(set(ids)) == len(ids) == 12
    assert "q0#1>4" in ids


def test_the_card_of_a_rounds_pairs_says_where_they_come_from(tmp_path: Path) -> None:
    store, rule = ImageStore(tmp_path / "images"), PairRule(margin=30, seed=5, length_slack=None)
    selected = select_pairs(run_of(4), rule, lambda asked: to_json(prompt(asked), store), Licence(source="mine"))
    write_pairs(selected.pairs, tmp_path / "pairs")
    text = (tmp_path / "pairs" / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])["insightv"]
    assert header["questions"] == 4
    assert header["seed"] == 5
    assert header["chosen"]["margin"] == 30
    assert header["models"] == {"policy": "openai/teacher"}
    assert header["prompts"] == {"reasoning agent: system": hashlib.sha256(INSTRUCTION.encode()).hexdigest()}
    assert header["paths"]["ok"] == header["paths"]["total"] == sum(header["bands"].values()) > 0
    assert header["lengths"]["pairs"] == header["rows"] == len(selected.pairs)
    row = load_dataset(str(tmp_path / "pairs"), split="train", cache_dir=str(tmp_path / "cache"))[0]
    assert (row["source"], row["licence"], row["family"]) == ("charts", "CC0", "reasoning")  # the question's own first


def test_the_card_of_somebody_elses_pairs_claims_no_scores(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    one, two = (ReasoningPath(question_id="q", index=i, status="ok", model="external") for i in (0, 1))
    meta = {"replies": {"chosen": "yes", "rejected": "no"}, "prompt": to_json(prompt(question("q", [])), store)}
    write_pairs([PreferencePair(question_id="q", chosen=one, rejected=two, margin=100, meta=meta)], tmp_path / "pairs")
    text = (tmp_path / "pairs" / "README.md").read_text()
    assert "somebody else's data gave them" in text
    assert "high band" not in text
