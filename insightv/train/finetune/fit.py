"""One training, from files to a model directory: checked rows, resumable steps, a result that is whole or absent.

    train(Job(stage="reason", policy="base", data="datasets/reason", out="checkpoints/reasoning", settings=...))

Beside `out` stands `<out>.training` with checkpoints, `rows.json` (what the preflight found), `identity.json` (what is
being trained: a training is resumed with the same or not at all) and, at the end, `report.json`. Which trainer takes
the steps, `trainers` knows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from insightv.atomic_files import full_disk_told, new_file, new_folder, refuse_foreign
from insightv.backends import checkpoints
from insightv.backends.checkpoints import Checkpoint, identity_of, is_complete, last_complete, mark, read_marker
from insightv.errors import ConfigError, InputError, InsightvError, RunChanged, RunHeld, differences_between, require
from insightv.strict_json import Json
from insightv.train.finetune import trainers
from insightv.train.finetune.control_tokens import without_control_tokens
from insightv.train.finetune.memory import job_memory
from insightv.train.finetune.model_card import model_card
from insightv.train.finetune.models import end_tokens, load_processor, trained_weights, write_plain
from insightv.train.finetune.preflight import Limits, Preflight, check_rows, refuse, row_id
from insightv.train.finetune.rounding import rounding_warning
from insightv.train.finetune.settings import Job, TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin

IDENTITY, ROWS, REPORT, STEPS = "identity.json", "rows.json", "report.json", "checkpoints"


def train(job: Job) -> Path:
    """Do the job, from its last complete checkpoint where there is one; returns `job.out`.

    A job that is done already, with the same model, rows and settings, returns at once.

    Raises:
        InputError: model or rows cannot be used; nothing was trained.
        RunChanged: `<out>.training` holds a training of something else.
        RunHeld: another process is at this training.
        StorageFull: the disk is full; the training continues from the last complete checkpoint.
        MissingExtra: a package is not installed.
    """
    for package in ("torch", "transformers", "trl", "peft", "accelerate", "datasets"):
        require(package, "train")
    if Path(job.policy).absolute() == job.out.absolute():
        raise ConfigError(f"{str(job.out)!r} cannot be trained into itself; name another directory for the result")
    with full_disk_told(job.work):
        job.work.mkdir(parents=True, exist_ok=True)
        if not _is_main():
            return _train(job)
        return _held(job)


def _held(job: Job) -> Path:
    """The training while no other process is at it."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(job.work / "lock", timeout=0):
            return _train(job)
    except Timeout as error:
        raise RunHeld(f"another process is training {str(job.out)!r}; wait for it, or stop it first") from error


def _train(job: Job) -> Path:
    identity = what_is_trained(job)
    if done(job, identity):
        _clear(job)
        return job.out
    refuse_foreign(job.out)
    _begin(job, identity)
    processor = load_processor(job.policy)
    data = without_control_tokens(read_rows(job.data, job.work), processor)
    report = _preflight(job, data, processor)
    _take_steps(job, identity, data.select(report.kept), processor, report)
    return job.out


def what_is_trained(job: Job) -> dict[str, Json]:
    """What decides the result: model, rows and settings, by hash and by value."""
    from insightv.train.data.parquet import taught_digest

    policy = Path(job.policy)
    model = identity_of(policy) if policy.is_dir() else job.policy
    rows = taught_digest(_parquet(job.data))
    return {"stage": job.stage, "model": model, "rows": rows, "settings": job.settings.identity()}


def done(job: Job, identity: Mapping[str, Json]) -> bool:
    """Whether `out` is the whole result of just this job."""
    marker = read_marker(job.out)
    return bool(marker and marker.get("identity") == dict(identity) and is_complete(job.out))


def _begin(job: Job, identity: Mapping[str, Json]) -> None:
    """Record what is trained, or check that it is what was begun here."""
    path = job.work / IDENTITY
    if not _is_main():
        return
    begun = orjson.loads(path.read_bytes()) if path.is_file() else None
    steps = [folder for _, folder in checkpoints.steps_of(job.work / STEPS)]
    if begun is not None and begun != dict(identity) and steps:
        what = f"{str(job.work)!r} holds a training that was begun with something else"
        cure = "continue with the same, or remove that folder to begin again"
        raise RunChanged.of(what, differences_between(begun, identity), cure)
    with new_file(path) as file:
        file.write(orjson.dumps(dict(identity), option=orjson.OPT_INDENT_2))


def read_rows(data: Path, work: Path) -> Dataset:
    """The rows of a data set folder (or one Parquet file), as Hugging Face data.

    Raises:
        InputError: there is no Parquet file.
    """
    from datasets import load_dataset

    files = [str(path) for path in _parquet(data)]
    return load_dataset("parquet", data_files=files, split="train", cache_dir=str(work / "cache"))


def _parquet(data: Path) -> list[Path]:
    found = sorted(data.glob("*.parquet")) if data.is_dir() else [data] if data.is_file() else []
    if not found:
        raise InputError(f"{str(data)!r} holds no *.parquet; name a data set as insightv writes it with format trl")
    return found


def _preflight(job: Job, data: Dataset, processor: ProcessorMixin) -> Preflight:
    from accelerate import PartialState
    from transformers import AutoConfig

    state = PartialState(cpu=job.settings.device == "cpu")
    if job.settings.num_processes not in (None, state.num_processes):
        raise ConfigError(
            f"num_processes = {job.settings.num_processes}, but {state.num_processes} is running; start the training "
            "with insightv.train.finetune.process, or with accelerate launch"
        )
    load: Any = AutoConfig
    config = load.from_pretrained(job.policy, trust_remote_code=False)
    holds = getattr(config.get_text_config(), "max_position_embeddings", None)
    most = min((limit for limit in (job.settings.max_length, holds) if limit), default=None)
    memory = job_memory(config, job.settings, state.num_processes)
    with state.main_process_first():
        limits = Limits(most, memory, job.settings.batch_size)
        report = check_rows(data, processor, limits, end_tokens(job.policy, config))
    if _is_main():
        _write_json(job.work / ROWS, report.json())
    refuse(report, skip=job.settings.bad_rows == "skip")
    return report


def _take_steps(
    job: Job, identity: dict[str, Json], data: Dataset, processor: ProcessorMixin, report: Preflight
) -> None:
    from insightv.train.finetune.recorder import Recorder, took_all

    found = last_complete(job.work / STEPS)
    half = [path.name for _, path in checkpoints.steps_of(job.work / STEPS) if not read_marker(path)]
    recorder = Recorder(job, found)
    make: Any = trainers.dpo_trainer if job.stage == "preference" else trainers.sft_trainer
    trainer, base = make(job, data, processor, recorder, found)
    recorder.trainer = trainer
    if steps_in_all(job.settings, len(data), trainer.args.world_size) == 1:
        trainer.args.warmup_steps = 0  # its only step would be at a rate of 0
    if took_all(found):
        trained, loss = recorder.take_last(), None
    else:
        with _told_apart(data, report):
            loss = trainer.train(resume_from_checkpoint=str(found.folder) if found else None).training_loss
        recorder.check_moved()
        trained = job.work / "final"
        trainer.save_model(str(trained))
    trainer.accelerator.wait_for_everyone()
    if not _is_main():
        return
    facts = _facts(job, trainer, report, found, half) | {"loss": loss}
    if job.stage == "preference":
        facts["preference"] = trainers.round_report(job, base, trainer)
    _publish(job, identity, trained, base, facts)


def steps_in_all(settings: TrainSettings, rows: int, processes: int) -> int:
    """The optimizer's steps of a training, as transformers counts them."""
    if settings.max_steps:
        return settings.max_steps
    batches = ceil(ceil(rows / processes) / settings.batch_size)
    return ceil(settings.epochs * max(1, ceil(batches / settings.accumulation)))


@contextmanager
def _told_apart(data: Dataset, report: Preflight) -> Iterator[None]:
    """Errors of the model and the device that have a cure, with the cure."""
    import torch

    longest = row_id(data[report.kept.index(report.longest)]) if report.longest is not None else "?"
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InsightvError(
            f"the device is out of memory (the longest row is {longest}: {report.longest_tokens} tokens); lower "
            "batch_size or max_length, set gradient_checkpointing, or memory_gib so that such rows are found at once"
        ) from error
    except ValueError as error:
        if "image tokens" not in str(error).lower():
            raise
        raise InputError(
            f"the model makes another number of image features than its processor has places for: {error}; the "
            "processor's patch_size, num_additional_image_tokens or vision_feature_select_strategy do not fit the model"
        ) from error


def _facts(job: Job, trainer: Any, report: Preflight, found: Checkpoint | None, half: list[str]) -> dict[str, Json]:
    weights = trained_weights(trainer.model).values()
    return {
        "stage": job.stage,
        "policy": job.policy,
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "resumed_from_step": found.step if found else None,
        "half_saved_and_not_used": list(half),
        "rows": report.rows,
        "rows_trained_on": len(report.kept),
        "rows_left_out": len(report.bad),
        "warnings": list(report.warnings),
        "weights_trained": sum(weight.numel() for weight in weights),
        "longest_row_tokens": report.longest_tokens,
        "log": trainer.state.log_history,
    }


def _publish(job: Job, identity: dict[str, Json], trained: Path, base: str, facts: dict[str, Json]) -> None:
    """Write the trained model into its place, and only then let go of the checkpoints."""
    with new_folder(job.out) as folder:
        kept, dtype = write_plain(trained, base, job.policy, job.settings, folder)
        warnings: Any = facts["warnings"]
        facts |= {"change_kept": kept, "warnings": [*warnings, *filter(None, [rounding_warning(kept, dtype)])]}
        (folder / "README.md").write_text(model_card(job, base, facts), encoding="utf-8")
        _write_json(folder / REPORT, facts)
        below: dict[str, Json] = {}
        if job.settings.method != "full":
            below = {"base": str(Path(base).absolute()) if Path(base).is_dir() else base}
            below |= {"base_identity": identity_of(Path(base))} if Path(base).is_dir() else {}
        mark(folder, identity=identity, **below)
    _write_json(job.work / REPORT, facts)
    _clear(job)


def _clear(job: Job) -> None:
    """Let go of what is of no use once the trained model is in its place."""
    if _is_main():
        for name in (STEPS, "final", "cache"):
            with suppress(FileNotFoundError):
                shutil.rmtree(job.work / name)


def _write_json(path: Path, value: Mapping[str, Json]) -> None:
    with new_file(path) as file:
        file.write(orjson.dumps(dict(value), option=orjson.OPT_INDENT_2, default=str))


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"
