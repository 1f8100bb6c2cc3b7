"""Supervised training moves the weights it should and only those, looks at images, and leaves a whole directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from insightv.backends.checkpoints import is_complete, read_marker
from insightv.errors import ConfigError, InputError, InsightvError, RunChanged
from insightv.train.finetune import fit
from insightv.train.finetune.fit import steps_in_all
from insightv.train.finetune.settings import Job, checked

from .small import apart, moved, part, quick, train_agent

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch and trl, about their own insides


@pytest.fixture(scope="module")
def lora(base: Path, reason: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_agent(base, reason, tmp_path_factory.mktemp("lora") / "agent", settings=quick())


@pytest.fixture(scope="module")
def full(base: Path, reason: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_agent(base, reason, tmp_path_factory.mktemp("full") / "agent", settings=quick(method="full"))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_that_diverges_is_no_model(base: Path, reason: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "agent"
    with pytest.raises(InsightvError, match=r"training has diverged: after 3 steps .* lower learning_rate"):
        train_agent(base, reason, out, settings=quick(method=method, learning_rate=1e30, max_steps=3, warmup=0.0))
    assert not out.exists()


def test_a_training_of_one_step_learns_in_it(base: Path, reason: Path, tmp_path: Path) -> None:
    settings = quick(max_steps=None, batch_size=16, epochs=1.0, warmup=0.05)
    assert moved(base, train_agent(base, reason, tmp_path / "agent", settings=settings))


def test_steps_are_counted_as_transformers_does() -> None:
    for rows, batch, accumulation, epochs, steps in (
        (12, 2, 1, 2, 12),
        (13, 2, 4, 1, 2),
        (3, 4, 4, 1, 1),
        (9, 4, 2, 2, 4),
    ):
        settings = quick(max_steps=None, batch_size=batch, accumulation=accumulation, epochs=epochs)
        assert steps_in_all(settings, rows, 1) == steps
    assert steps_in_all(quick(max_steps=7), 12, 1) == 7


def test_adapters_move_every_linear_layer_but_the_head_and_nothing_else(base: Path, lora: Path) -> None:
    changed = moved(base, lora)
    assert {part(name) for name in changed} == {"language", "multi_modal_projector"}
    layers = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert changed == {
        *(f"model.language_model.layers.{i}.self_attn.{name}.weight" for i in (0, 1) for name in layers[:4]),
        *(f"model.language_model.layers.{i}.mlp.{name}.weight" for i in (0, 1) for name in layers[4:]),
        "model.multi_modal_projector.linear_1.weight",
        "model.multi_modal_projector.linear_2.weight",
    }


def test_full_training_moves_language_model_and_projector_and_leaves_the_vision_tower(base: Path, full: Path) -> None:
    from .small import weights

    changed = moved(base, full)
    assert "vision_tower" not in {part(name) for name in changed}
    still = {name for name in weights(base) if name not in changed and part(name) != "vision_tower"}
    assert not still


def test_without_the_projector_only_the_language_model_moves(base: Path, reason: Path, tmp_path: Path) -> None:
    out = train_agent(base, reason, tmp_path / "agent", settings=quick(train_projector=False))
    assert {part(name) for name in moved(base, out)} == {"language"}


def test_the_result_is_a_whole_plain_directory_with_card_report_and_adapter(base: Path, lora: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    assert is_complete(lora)
    assert AutoProcessor.from_pretrained(str(lora)).chat_template
    card = (lora / "README.md").read_text()
    assert "base_model:" in card
    report = json.loads((lora / "report.json").read_text())
    assert (report["steps"], report["rows_trained_on"], report["resumed_from_step"]) == (2, 12, None)
    assert not (lora.parent / "agent.training" / "checkpoints").exists()
    under = AutoModelForImageTextToText.from_pretrained(str(base))
    merged = PeftModel.from_pretrained(under, str(lora / "adapter")).merge_and_unload()
    merged.save_pretrained(lora.parent / "merged")
    assert apart(lora, lora.parent / "merged") < 1e-6


def test_a_training_that_is_done_is_not_done_again(base: Path, reason: Path, lora: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in lora.rglob("*")}
    assert train_agent(base, reason, lora, settings=quick(log_steps=7)) == lora
    assert {path: path.stat().st_mtime_ns for path in lora.rglob("*")} == before


def test_a_training_is_known_by_what_its_rows_teach(base: Path, reason: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(reason / "train-00000.parquet")

    def known(name: str, **columns: list[Any]) -> Any:
        made = table
        for column, values in columns.items():
            place = made.column_names.index(column)
            made = made.set_column(place, made.schema.field(place), pa.array(values, made.schema.field(place).type))
        (tmp_path / name).mkdir()
        pq.write_table(made, tmp_path / name / "train-00000.parquet", compression="gzip", row_group_size=2)
        job = Job(stage="reason", policy=str(base), data=tmp_path / name, out=tmp_path / "out", settings=quick())
        return fit.what_is_trained(job)

    plain = known("plain")
    assert known("told", licence=["CC-BY"] * 12, source=["elsewhere"] * 12, model=["a"] * 12) == plain
    assert known("other", completion=table["completion"].to_pylist()[::-1]) != plain
    assert known("pictures", images=table["images"].to_pylist()[::-1]) != plain
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"cut.parquet' is no Parquet file that can be read"):
        train_agent(base, cut, tmp_path / "out", settings=quick())


def test_a_result_with_a_damaged_file_is_not_taken_for_whole(lora: Path, tmp_path: Path) -> None:
    copy = tmp_path / "agent"
    shutil.copytree(lora, copy)
    assert is_complete(copy)
    (copy / "model.safetensors").write_bytes(b"half")
    assert not is_complete(copy)
    assert read_marker(copy)


def test_the_same_seed_gives_the_same_weights(base: Path, reason: Path, lora: Path, tmp_path: Path) -> None:
    again = train_agent(base, reason, tmp_path / "agent", settings=quick())
    assert apart(lora, again) == 0
    assert apart(lora, train_agent(base, reason, tmp_path / "other", settings=quick(seed=1))) > 0


def test_images_reach_the_loss_and_the_prompt_does_not(base: Path, reason: Path, tmp_path: Path) -> None:
    import torch
    from PIL import Image
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from insightv.train.finetune.models import load_model, load_processor

    data = load_dataset(str(reason), split="train", cache_dir=str(tmp_path / "cache"))
    processor, model = load_processor(base), load_model(base, quick()).eval()
    collate = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)

    def loss(**changes: object) -> float:
        row = dict(data[3]) | changes
        with torch.no_grad():
            return float(model(**collate([row])).loss)

    noise = Image.effect_noise((12, 12), 90).convert("RGB")
    assert abs(loss() - loss(images=[noise])) > 1e-4
    labels = collate([dict(data[3])])["labels"]
    told = processor.tokenizer.decode(labels[labels != -100])
    assert told.startswith("<thoughts>")
    assert "What is" not in told


def test_what_was_begun_with_other_settings_is_not_gone_on_with(base: Path, reason: Path, tmp_path: Path) -> None:
    out = tmp_path / "agent"
    job = Job(stage="reason", policy=str(base), data=reason, out=out, settings=quick())
    (job.work / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (job.work / "identity.json").write_text(json.dumps({"stage": "reason", "settings": {"seed": 9}}))
    with pytest.raises(RunChanged, match=r"settings\.seed: 9 -> 0"):
        train_agent(base, reason, out, settings=quick())


def test_what_another_training_holds_is_left_alone(base: Path, reason: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    out = tmp_path / "agent"
    (tmp_path / "agent.training").mkdir()
    with FileLock(tmp_path / "agent.training" / "lock"), pytest.raises(InsightvError, match="another process"):
        train_agent(base, reason, out, settings=quick())


def test_wrong_inputs_are_told_before_anything_is_trained(base: Path, reason: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="parquet"):
        train_agent(base, tmp_path / "nothing", tmp_path / "a", settings=quick())
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no weights"):
        train_agent(tmp_path / "empty", reason, tmp_path / "a", settings=quick())


def test_a_place_that_is_not_ours_is_told_before_training(base: Path, reason: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="did not write"):
        train_agent(base, reason, tmp_path / "thesis", settings=quick())
    assert not (tmp_path / "thesis.training" / "checkpoints").exists()
    with pytest.raises(ConfigError, match="into itself"):
        train_agent(base, reason, base, settings=quick())


def test_bfloat16_trains_where_there_is_no_accelerator(base: Path, reason: Path, tmp_path: Path) -> None:
    """As the paper's preset asks for it, on whatever device there is."""
    out = train_agent(base, reason, tmp_path / "agent", settings=quick(bf16=True, device="auto", max_steps=1, warmup=0))
    assert moved(base, out)


def test_a_learning_rate_that_moves_nothing_is_told(base: Path, reason: Path, tmp_path: Path) -> None:
    with pytest.raises(InsightvError, match="changed no weight"):
        train_agent(base, reason, tmp_path / "a", settings=quick(method="full", learning_rate=1e-60))


@pytest.mark.parametrize(
    "name", ["packing", "padding_free", "max_length", "truncation_mode", "precompute_ref_log_probs"]
)
def test_options_that_break_images_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        quick(trl={name: True})
    if name != "max_length":  # ours has that name too, and never cuts
        with pytest.raises(ConfigError, match=name):
            checked("reason", {name: True})


def test_text_only_rows_train_beside_rows_with_images(base: Path, tmp_path: Path) -> None:
    from insightv.assess.bands import AssessedQuestion
    from insightv.train.data.card import Origin
    from insightv.train.data.export import export_set
    from insightv.train.data.sets import ReasonSet

    from .world import mixed, picture, prompt, run_of

    def some(number: int) -> AssessedQuestion:
        return mixed(number, images=[picture(number + i) for i in range(number % 3)])

    export_set(ReasonSet(prompt=prompt), run_of(12, some), tmp_path / "data", Origin())
    out = train_agent(
        base, tmp_path / "data", tmp_path / "agent", settings=quick(batch_size=6, gradient_checkpointing=True)
    )
    assert moved(base, out)


@pytest.mark.parametrize(
    "ends",
    [{"method": "full", "max_steps": None, "epochs": 1.0, "batch_size": 4}, {"method": "full"}, {"method": "lora"}],
    ids=["full, whole epoch", "full, within an epoch", "lora, within an epoch"],
)
def test_a_training_killed_after_its_last_step_is_published_as_it_was(
    base: Path, reason: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: dict[str, Any]
) -> None:
    settings = quick(**{"warmup": 0.0, "schedule": "constant", **ends})
    undisturbed = train_agent(base, reason, tmp_path / "undisturbed", settings=settings)
    with monkeypatch.context() as broken:
        broken.setattr(fit, "_publish", kill)
        with pytest.raises(KeyboardInterrupt):
            train_agent(base, reason, tmp_path / "killed", settings=settings)
    resumed = train_agent(base, reason, tmp_path / "killed", settings=settings)
    assert apart(undisturbed, resumed) == 0
    reports = [json.loads((out / "report.json").read_text()) for out in (undisturbed, resumed)]
    assert reports[0]["steps"] == reports[1]["steps"] == reports[1]["resumed_from_step"]
    assert reports[1]["log"] == [entry for entry in reports[0]["log"] if "train_runtime" not in entry]
    assert not (tmp_path / "killed.training" / "checkpoints").exists()


def test_a_last_checkpoint_that_moved_nothing_is_no_model(base: Path, reason: Path, tmp_path: Path) -> None:
    settings = quick(method="full", learning_rate=1e-60)
    for _ in range(2):  # the second time the checkpoint of the last step is there
        with pytest.raises(InsightvError, match="changed no weight in 2 steps"):
            train_agent(base, reason, tmp_path / "a", settings=settings)
    assert not (tmp_path / "a").exists()


def kill(*_: object) -> None:
    """In place of publishing: the end of the process."""
    raise KeyboardInterrupt
