"""Pairs in one sequence give the losses, figures and gradients of plain TRL, which reads them as two."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from PIL import Image, ImageDraw

from insightv.backends.checkpoints import Checkpoint, read_marker
from insightv.records import PreferencePair
from insightv.train.finetune.dpo_role import DPOPreferenceTrainer, write_pairs
from insightv.train.finetune.fit import read_rows
from insightv.train.finetune.models import freeze, load_model, load_processor, lora_config, vision_tower
from insightv.train.finetune.pair_batch import pack
from insightv.train.finetune.pair_forward import tree_mask
from insightv.train.finetune.pair_trainer import PairTrainer, plain
from insightv.train.finetune.recorder import Recorder
from insightv.train.finetune.settings import Job, TrainSettings, settings_of
from insightv.train.finetune.trainers import dpo_trainer
from tests.backends import tiny_vlm

from . import tiny_qwen
from .small import quick

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch and trl, about their own insides

REPLIES = [
    ("<thoughts>\n### Look\nA 5, B 3.</thoughts>", "<thoughts>\n### Look\nA 5, B 4. So it is more.</thoughts>"),
    ("yes", "no, it is not"),
    ("the bar is at 4", "the bar is at 4, and so on"),
    ("7", "seven of them"),
]


def drawn(number: int, size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size, (255, 240, 255 - 9 * number))
    ImageDraw.Draw(image).rectangle((4, 5 + number, 20, 30), fill=(20 * number, 90, 200))
    return image


def rows(counts: tuple[int, ...] = (1, 1, 2, 1)) -> list[dict[str, Any]]:
    """Pairs with so many pictures each, of several sizes; replies of several lengths, with and without a beginning."""
    made = []
    for number, (count, (chosen, rejected)) in enumerate(zip(counts, REPLIES, strict=True)):
        pictures = [drawn(number + i, (40 + 30 * (number % 2), 40)) for i in range(count)]
        blocks: list[dict[str, Any]] = [{"type": "image", "text": None}] * count
        asked = [*blocks, {"type": "text", "text": "How high is it" + "?" * (number + 1)}]
        answers = [[{"role": "assistant", "content": [{"type": "text", "text": it}]}] for it in (chosen, rejected)]
        prompt = [{"role": "user", "content": asked}]
        made.append({"images": pictures, "prompt": prompt, "chosen": answers[0], "rejected": answers[1]})
    return made


Make = Callable[[TrainSettings], tuple[Any, Any]]


def llava(base: Path) -> Make:
    return lambda settings: (load_model(base, settings), load_processor(base))


def qwen(settings: TrainSettings) -> tuple[Any, Any]:
    processor = tiny_qwen.build_processor()
    model = tiny_qwen.build_model(processor)
    freeze(model, settings)
    return model, processor


def one_step(trainer_class: type[Any], make: Make, folder: Path, batch: list[dict[str, Any]], **changes: Any) -> Any:
    """A trainer after the loss and gradients of one batch; its policy is not where its reference is."""
    import torch
    from trl.trainer.dpo_config import DPOConfig

    kind, attention = changes.pop("kind", "new"), changes.pop("attention", "sdpa")
    settings = settings_of("preference", device="cpu", method="full" if kind == "full" else "lora")
    model, processor = make(settings)
    model.set_attn_implementation(attention)
    reference, adapters = None, None
    if kind == "full":
        reference = copy.deepcopy(model).requires_grad_(False).eval()
    elif kind == "new":
        adapters = lora_config(model, settings)
    else:
        from peft import get_peft_model

        config: Any = lora_config(model, settings)
        model = get_peft_model(model, config)
        _disturb(model, seed=5)
    options: dict[str, Any] = {
        "output_dir": str(folder),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "max_length": None,
    }
    options |= {"loss_type": ["sigmoid", "sft"], "gradient_checkpointing": False, "disable_tqdm": True}
    trainer = trainer_class(
        model, ref_model=reference, args=DPOConfig(**(options | changes)), peft_config=adapters,
        train_dataset=Dataset.from_list([{"images": [], "prompt": "a"}]), processing_class=processor,
    )  # fmt: skip
    _disturb(trainer.model, seed=7)
    trainer.model.train()
    made = trainer.data_collator(copy.deepcopy(batch))
    trainer.loss = trainer.compute_loss(trainer.model, made)
    trainer.loss.backward()
    trainer.figures = {name: values[0] for name, values in trainer._metrics["train"].items()}
    assert torch.isfinite(trainer.loss)
    return trainer


def _disturb(model: Any, seed: int) -> None:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, weight in sorted(model.named_parameters()):
            if weight.requires_grad and ".ref." not in name:
                weight.data.add_(torch.randn_like(weight), alpha=0.05)


def same(ours: Any, theirs: Any) -> None:
    assert float(ours.loss) == pytest.approx(float(theirs.loss), abs=1e-4)
    assert ours.figures.keys() == theirs.figures.keys()
    for name, value in theirs.figures.items():
        assert ours.figures[name] == pytest.approx(value, abs=1e-4, rel=1e-5), name
    assert abs(theirs.figures["rewards/margins"]) > 1e-3  # policy and reference differ, so both were compared
    mine = {name: weight.grad for name, weight in ours.model.named_parameters() if weight.grad is not None}
    moved = 0
    for name, weight in theirs.model.named_parameters():
        if weight.grad is None or not weight.requires_grad:
            continue
        moved += bool(weight.grad.abs().max() > 0)
        assert float((mine[name] - weight.grad).abs().max()) < 1e-4 * max(1.0, float(weight.grad.abs().max())), name
    assert moved > 5
    elsewhere = mine.keys() - {name for name, weight in theirs.model.named_parameters() if weight.grad is not None}
    assert not any(mine[name].any() for name in elsewhere)


@pytest.mark.parametrize("kind", ["new", "continued", "full"])
def test_llava_next_as_plain_trl(base: Path, tmp_path: Path, kind: str) -> None:
    from trl.trainer.dpo_trainer import DPOTrainer

    both = [one_step(trainer, llava(base), tmp_path, rows(), kind=kind) for trainer in (PairTrainer, DPOTrainer)]
    same(*both)


@pytest.mark.parametrize("kind", ["new", "full"])
def test_qwen_2_5_vl_as_plain_trl(tmp_path: Path, kind: str) -> None:
    from trl.trainer.dpo_trainer import DPOTrainer

    both = [one_step(trainer, qwen, tmp_path, rows(), kind=kind) for trainer in (PairTrainer, DPOTrainer)]
    same(*both)


def test_the_embedded_model_as_plain_trl(tmp_path: Path) -> None:
    from trl.trainer.dpo_trainer import DPOTrainer

    teacher = Path(str(files("insightv") / "tiny" / "weights" / "teacher"))
    batch = rows((1, 1, 1, 1))
    same(*(one_step(trainer, llava(teacher), tmp_path, batch) for trainer in (PairTrainer, DPOTrainer)))


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": "eager"},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
        {"loss_type": ["ipo"], "ld_alpha": 0.5},
        {"loss_type": ["sigmoid_norm"], "use_weighting": True},
    ],
    ids=["eager", "checkpointing", "ipo", "weighted"],
)
def test_other_settings_as_plain_trl(base: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    from trl.trainer.dpo_trainer import DPOTrainer

    same(*(one_step(trainer, llava(base), tmp_path, rows(), **changes) for trainer in (PairTrainer, DPOTrainer)))


@pytest.mark.parametrize("counts", [(0, 1, 0, 1), (0, 0, 0, 0)], ids=["mixed", "none"])
def test_rows_without_pictures_as_plain_trl(base: Path, tmp_path: Path, counts: tuple[int, ...]) -> None:
    from trl.trainer.dpo_trainer import DPOTrainer

    same(*(one_step(trainer, llava(base), tmp_path, rows(counts)) for trainer in (PairTrainer, DPOTrainer)))


def test_a_pair_is_one_sequence_and_its_replies_part_where_they_differ() -> None:
    import torch

    prompt, better, worse = (torch.tensor(ids) for ids in ([5, 6], [1, 2, 3], [1, 4]))
    made = pack([prompt, prompt[:1]], [better, better], [worse, better[2:]], pad=0)
    assert made["input_ids"].tolist() == [[5, 6, 1, 2, 3, 4], [5, 1, 2, 3, 3, 0]]
    assert made["part"].tolist() == [[0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 2, -1]]
    told = made["input_ids"].repeat(2, 1).gather(1, made["places"])
    assert told.tolist() == [
        [6, 1, 2, 3],
        [5, 1, 2, 3],
        [6, 1, 4, 5],
        [5, 3, 5, 5],
    ]  # padding points to the first token
    seen = tree_mask(made["part"], None)[0, 0]
    assert seen.int().tolist()[-1] == [1, 1, 1, 0, 0, 1]
    assert seen.int().tolist()[-2] == [1, 1, 1, 1, 1, 0]


def job_in(folder: Path, policy: Path, pairs: list[PreferencePair], **changes: Any) -> Job:
    write_pairs(pairs, folder / "pairs")
    chosen: dict[str, Any] = {"max_steps": None, "epochs": 2.0, "save_steps": 4, "keep_checkpoints": 9}
    settings = quick("preference", **(chosen | changes))
    return Job(stage="preference", policy=str(policy), data=folder / "pairs", out=folder / "out", settings=settings)


def trainer_of(job: Job, found: Checkpoint | None = None) -> Any:
    recorder = Recorder(job, found)
    data, processor = read_rows(job.data, job.work), load_processor(job.policy)
    recorder.trainer, _ = dpo_trainer(job, data, processor, recorder, found)
    return recorder.trainer


@pytest.mark.parametrize("method", ["lora", "full"])
def test_each_pair_goes_once_through_the_reference_and_each_batch_once_through_the_tower(
    base: Path, pairs: list[PreferencePair], tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(job_in(tmp_path, base, pairs, method=method))
    assert isinstance(trainer, PairTrainer)
    passes = {"tower": 0, "reference": 0}
    towers = [
        plain(model).get_submodule(vision_tower(plain(model))) for model in {trainer.model, trainer.ref_model} - {None}
    ]

    def count(name: str) -> Callable[..., None]:
        def counted(*_: Any) -> None:
            passes[name] += 1

        return counted

    for tower in towers:
        inner: Any = tower.embeddings
        inner.register_forward_hook(count("tower"))
    asked = trainer.compute_ref_log_probs
    monkeypatch.setattr(trainer, "compute_ref_log_probs", lambda *given: (count("reference")(), asked(*given))[1])
    trainer.train()
    assert trainer.state.global_step == 12
    assert passes == {"tower": 12, "reference": 6}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_resumed_in_the_second_epoch_it_goes_on_as_undisturbed(
    base: Path, pairs: list[PreferencePair], tmp_path: Path, method: str
) -> None:
    job = job_in(tmp_path, base, pairs, method=method)
    calm = trainer_of(job)
    calm.train()
    folder = job.work / "checkpoints" / "checkpoint-8"
    found = Checkpoint(folder, 8, read_marker(folder) or {})
    resumed = trainer_of(job, found)
    resumed.train(resume_from_checkpoint=str(found.folder))
    losses = [[entry["loss"] for entry in one.state.log_history if "loss" in entry] for one in (calm, resumed)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    theirs = dict(resumed.model.named_parameters())
    assert all(float((weight - theirs[name]).abs().max()) < 1e-5 for name, weight in calm.model.named_parameters())


def test_what_is_not_proven_is_left_to_plain_trl(tmp_path: Path, pairs: list[PreferencePair]) -> None:
    from trl.trainer.dpo_trainer import DPOTrainer

    window = tiny_vlm.build(tmp_path / "window", window=8)
    out = DPOPreferenceTrainer(
        child=False, device="cpu", batch_size=2, max_steps=1, warmup=0.0, learning_rate=1e-3
    ).train(window, pairs, tmp_path / "out")
    report = json.loads((out / "report.json").read_text())["preference"]
    assert "full attention" in report["prompt_read_twice"]
    trainer = trainer_of(job_in(tmp_path, window, pairs))
    assert type(trainer) is DPOTrainer
