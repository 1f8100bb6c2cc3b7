"""Every row is measured as the trainer will see it, and what would go wrong is named before anything is trained."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset
from transformers import AutoConfig

from insightv.assess.bands import AssessedQuestion
from insightv.errors import InputError
from insightv.records import Band, PreferencePair
from insightv.train.data.card import Origin
from insightv.train.data.export import export_set
from insightv.train.data.rows import training_features
from insightv.train.data.sets import ReasonSet
from insightv.train.finetune.models import load_processor
from insightv.train.finetune.preflight import Limits, Memory, Preflight, RowCounter, check_rows, refuse

from .small import quick, train_agent
from .world import path, picture, prompt, question, run_of

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch and trl, about their own insides


def mixed_sizes(number: int) -> AssessedQuestion:
    """Questions with no, one or two pictures, of several sizes; one with a long path."""
    text = "Look. " * (60 if number == 5 else 1 + number)
    images = [picture(number + i, size=10 + 7 * (number % 3)) for i in range(number % 3)]
    return AssessedQuestion(question(f"q{number}", images), (path(f"q{number}", 0, Band.high, 90, text=text),))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows") / "set"
    export_set(ReasonSet(prompt=prompt), run_of(8, mixed_sizes), folder, Origin())
    return folder


def load(folder: Path, cache: Path) -> Dataset:
    return load_dataset(str(folder), split="train", cache_dir=str(cache))


def test_counts_are_those_of_the_trainers_own_batches(base: Path, rows: Path, tmp_path: Path) -> None:
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    data, processor = load(rows, tmp_path), load_processor(base)
    collate = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    counter = RowCounter(processor)
    from datasets import Image, List

    raw = data.cast_column("images", List(Image(decode=False)))
    for number in range(len(data)):
        batch = collate([dict(data[number])])
        found = counter.count(raw[number])
        assert found.total == batch["input_ids"].shape[1]
        assert found.image == int((batch["input_ids"] == image).sum())
    assert len(counter.measured) < len(data)


def test_pairs_are_as_long_as_their_longer_half(base: Path, pairs: list[PreferencePair], tmp_path: Path) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    from insightv.train.finetune.dpo_role import write_pairs

    write_pairs(pairs, tmp_path / "pairs")
    data, processor = load(tmp_path / "pairs", tmp_path / "cache"), load_processor(base)
    collate = DataCollatorForVisionPreference(processor)
    report = check_rows(data, processor, Limits())
    assert report.longest is not None
    assert report.longest_tokens == collate([dict(data[report.longest])])["input_ids"].shape[1]
    assert len(report.kept) == len(pairs)


def test_a_row_that_is_too_long_is_named_and_the_others_kept(base: Path, rows: Path, tmp_path: Path) -> None:
    data, processor = load(rows, tmp_path), load_processor(base)
    report = check_rows(data, processor, Limits(tokens=400))
    assert [(bad.id, bad.code) for bad in report.bad] == [("q5#0", "too_long")]
    assert report.kept == [0, 1, 2, 3, 4, 6, 7]
    with pytest.raises(InputError, match=r"row 5 \(q5#0\): too_long: \d+ tokens"):
        refuse(report, skip=False)
    refuse(report, skip=True)


def test_a_row_beyond_the_memory_is_named(base: Path, rows: Path, tmp_path: Path) -> None:
    data, processor = load(rows, tmp_path), load_processor(base)
    longest = check_rows(data, processor, Limits()).longest_tokens
    memory = Memory(fixed=1000, per_token=10, limit=1000 + 10 * 2 * (longest - 1))
    report = check_rows(data, processor, Limits(memory=memory, batch=2))
    assert [(bad.id, bad.code) for bad in report.bad] == [("q5#0", "memory")]


def block(*parts: str) -> list[dict[str, Any]]:
    return [{"type": "image", "text": None} if part == "IMAGE" else {"type": "text", "text": part} for part in parts]


def odd(name: str, shown: list[dict[str, Any]], told: str, images: int) -> dict[str, Any]:
    features = training_features()
    row: dict[str, Any] = dict.fromkeys(features)
    row |= {"prompt": [{"role": "user", "content": shown}], "question_id": name, "path": 0, "scores": [], "calls": []}
    row["completion"] = [{"role": "assistant", "content": block(told)}]
    row["images"] = [{"bytes": picture(1).data, "path": None} for _ in range(images)]
    return row


def test_rows_that_do_not_fit_their_pictures_are_named(base: Path) -> None:
    broken = odd("broken", block("IMAGE", "What?"), "4", 1)
    broken["images"][0]["bytes"] = b"no picture"
    data = Dataset.from_list(
        [
            odd("fine", block("IMAGE", "What?"), "4", 1),
            odd("no-place", block("What?"), "4", 1),
            odd("no-picture", block("IMAGE", "What?"), "4", 0),
            odd("in-text", block("IMAGE", "What is <image>?"), "4", 1),
            odd("in-reply", block("IMAGE", "What?"), "an <image>", 1),
            odd("empty", block("IMAGE", "What?"), "  ", 1),
            broken,
            odd("text-only", block("What?"), "4", 0),
        ],
        features=training_features(),
    )
    report = check_rows(data, load_processor(base), Limits())
    assert [(bad.id, bad.code) for bad in report.bad] == [
        ("no-place#0", "placeholders"),
        ("no-picture#0", "placeholders"),
        ("in-text#0", "placeholders"),
        ("in-reply#0", "placeholders"),
        ("empty#0", "empty"),
        ("broken#0", "image"),
    ]
    assert report.kept == [0, 7]


def test_a_template_that_refuses_a_row_is_told_as_that(base: Path) -> None:
    processor: Any = load_processor(base)
    refusal = "{% if messages[0]['content'][0]['text'] == 'odd' %}{{ raise_exception('no such turn') }}{% endif %}"
    processor.chat_template = refusal + processor.chat_template
    rows = [odd("fine", block("What?"), "4", 0), odd("refused", block("odd"), "4", 0)]
    report = check_rows(Dataset.from_list(rows, features=training_features()), processor, Limits())
    assert [(bad.id, bad.code) for bad in report.bad] == [("refused#0", "template")]
    assert "no such turn" in report.told()


def test_a_template_that_never_ends_a_reply_is_warned_of(base: Path, rows: Path, tmp_path: Path) -> None:
    from insightv.train.finetune.models import end_tokens

    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text().replace("<eos>", " "))
    train_agent(copy, rows, tmp_path / "out", settings=quick(bad_rows="skip"))
    [warning] = json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]
    assert re.search(r"copy'.*at which the model stops \(<eos>\).*chat_template\.jinja", warning)
    # A token of the generation settings will do: LLaMA-3 ends its turns with another than its end of text.
    processor = load_processor(copy)
    plain = Dataset.from_list([odd("fine", block("What?"), "4", 0)], features=training_features())
    settings = copy / "generation_config.json"
    ends = processor.tokenizer.convert_tokens_to_ids(["4", "<pad>"])
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token_id": ends}))
    config: Any = AutoConfig.from_pretrained(str(copy))
    assert check_rows(plain, processor, Limits()).warnings
    assert check_rows(plain, processor, Limits(), end_tokens(copy, config)).warnings == []
    settings.unlink()
    assert end_tokens(copy, config) == {processor.tokenizer.eos_token_id}


def test_nothing_left_is_refused_even_where_rows_may_be_left_out() -> None:
    with pytest.raises(InputError, match="no row"):
        refuse(Preflight(), skip=True)


def test_training_refuses_or_leaves_out_and_never_cuts(base: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="q5#0"):
        train_agent(base, rows, tmp_path / "stop", settings=quick(max_length=400))
    assert not (tmp_path / "stop").exists()
    out = train_agent(base, rows, tmp_path / "skip", settings=quick(max_length=400, bad_rows="skip"))
    report = json.loads((out / "report.json").read_text())
    assert (report["rows"], report["rows_trained_on"], report["rows_left_out"]) == (8, 7, 1)
    told = json.loads((tmp_path / "skip.training" / "rows.json").read_text())
    assert [bad["id"] for bad in told["bad"]] == ["q5#0"]


def test_rows_beyond_what_the_model_holds_are_refused_without_being_asked(base: Path, tmp_path: Path) -> None:
    def long(number: int) -> AssessedQuestion:
        text = "x" * (600 if number else 6)
        return AssessedQuestion(question(f"q{number}", []), (path(f"q{number}", 0, Band.high, 90, text=text),))

    export_set(ReasonSet(prompt=prompt), run_of(2, long), tmp_path / "data", Origin())
    with pytest.raises(InputError, match=r"512 are allowed"):
        train_agent(base, tmp_path / "data", tmp_path / "out", settings=quick())


def test_rows_longer_than_the_default_of_trl_keep_their_end(base: Path, tmp_path: Path) -> None:
    from insightv.train.finetune.fit import read_rows
    from insightv.train.finetune.recorder import Recorder
    from insightv.train.finetune.settings import Job
    from insightv.train.finetune.trainers import sft_trainer

    wide = tmp_path / "wide"
    config = AutoConfig.from_pretrained(str(base))
    config.text_config.max_position_embeddings = 4096
    shutil.copytree(base, wide)
    config.save_pretrained(wide)
    item = AssessedQuestion(question("q", [picture(1)]), (path("q", 0, Band.high, 90, text="x" * 1500),))
    export_set(ReasonSet(prompt=prompt), lambda: [item], tmp_path / "data", Origin())
    job = Job(stage="reason", policy=str(wide), data=tmp_path / "data", out=tmp_path / "out", settings=quick())
    recorder = Recorder(job, None)
    trainer, _ = sft_trainer(job, read_rows(job.data, tmp_path), load_processor(wide), recorder, None)
    labels = next(iter(trainer.get_train_dataloader()))["labels"][0]
    told = trainer.processing_class.tokenizer.decode(labels[labels != -100])  # type: ignore[union-attr] # a processor
    assert told.count("x") == 1500
    assert told.endswith("</thoughts><eos>")
