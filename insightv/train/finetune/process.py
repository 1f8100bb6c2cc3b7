"""Training in a process of its own, so that the device is free afterwards.

    run_job(Job(...))                              # from Python
    python -m insightv.train.finetune.process JOB.json        # the same by hand

What the process says goes to `<out>.training/log.txt`. With more than one process, or a file of accelerate's, it is
`accelerate launch` that starts them (on a CPU torchrun); `insightv/train/accelerate/` holds files for FSDP2, ZeRO-2 and
ZeRO-3, which `accelerate_config` names as "fsdp2", "zero2" and "zero3".
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path

import orjson
from pydantic import ValidationError

from insightv import errors
from insightv.atomic_files import full_disk_told, new_file
from insightv.child_processes import KeptProgram, end_of, end_with_leash, how_ended
from insightv.errors import ConfigError, InputError, InsightvError, Interrupted
from insightv.train.finetune.settings import Job

LOG, JOB, FAILED = "log.txt", "job.json", "error.json"

_TAIL = 2000


def run_job(job: Job, raise_if_stopped: Callable[[], None] = lambda: None) -> Path:
    """Train in a child process; returns `job.out`. `raise_if_stopped` is called often; what it raises ends the child.

    Raises:
        InputError, ConfigError, RunChanged, RunHeld, StorageFull, MissingExtra: as `insightv.train.finetune.fit.train`.
        InsightvError: the process ended without a result; the text has the end of its log.
    """
    with full_disk_told(job.work):
        job.work.mkdir(parents=True, exist_ok=True)
    file, failed = job.work / JOB, job.work / FAILED
    with new_file(file) as written:
        written.write(orjson.dumps(absolute(job).model_dump(mode="json"), option=orjson.OPT_INDENT_2))
    failed.unlink(missing_ok=True)
    with (job.work / LOG).open("ab") as log:
        command = [*launcher(job), "-m", "insightv.train.finetune.process", str(file)]
        child = KeptProgram(command, _environment(), log)
        try:
            while not child.wait(0.05):
                raise_if_stopped()
        finally:
            child.end()
    _raise_failure(failed, child.code, job.work / LOG)
    return job.out


def run_here(job: Job) -> Path:
    """Train in this process; what trainers print goes to the log, as in a process of its own. Returns `job.out`.

    Nothing stops it between two checkpoints but the end of this process. Raises as `insightv.train.finetune.fit.train`.
    """
    from datasets import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    from insightv.train.finetune.fit import train

    disable_progress_bars()
    transformers_logging.disable_progress_bar()
    with full_disk_told(job.work):  # around the log too: what is left of it is written when it is closed
        job.work.mkdir(parents=True, exist_ok=True)
        with (job.work / LOG).open("a", encoding="utf-8") as log, redirect_stdout(log), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers, about what trl still uses
            return train(job)


def launcher(job: Job) -> list[str]:
    """The command in front of the module: Python, `accelerate launch`, or torchrun.

    Raises:
        ConfigError: the file of accelerate's is not there.
    """
    settings, python = job.settings, [sys.executable, "-m"]
    processes = str(settings.num_processes or 1)
    if settings.accelerate_config is None:
        if processes == "1":
            return [sys.executable]
        if settings.device == "cpu":
            # accelerate starts one process only on a CPU, however many are asked for.
            return [*python, "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
        command = [*python, "accelerate.commands.launch", "--multi_gpu", "--num_processes", processes]
        command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    else:
        command = [
            *python,
            "accelerate.commands.launch",
            "--config_file",
            str(accelerate_file(settings.accelerate_config)),
        ]
        command += ["--num_processes", processes] if settings.num_processes else []
    # 0: any free port, so that two trainings on one machine do not meet.
    return [*command, "--main_process_port", "0"]


def accelerate_file(name: str) -> Path:
    """A file of accelerate's: one that comes with insightv, by name, or any by path.

    Raises:
        ConfigError: there is none.
    """
    ours = Path(__file__).with_name("accelerate")
    for path in (ours / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path.absolute()
    known = ", ".join(sorted(path.stem for path in ours.glob("*.yaml")))
    raise ConfigError(f"accelerate_config = {name!r} is no file; name one, or one of {known}")


def absolute(job: Job) -> Job:
    """The job with absolute paths, so that it means the same from anywhere."""
    policy = str(Path(job.policy).absolute()) if Path(job.policy).is_dir() else job.policy
    return job.model_copy(update={"policy": policy, "data": job.data.absolute(), "out": job.out.absolute()})


def _environment() -> dict[str, str]:
    """The environment without the traces of another launch, which would be taken for this one's."""
    other = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
    kept = {
        name: value for name, value in os.environ.items() if name not in other and not name.startswith("ACCELERATE_")
    }
    root = str(Path(__file__).parents[3])
    paths = [root, *filter(None, kept.get("PYTHONPATH", "").split(os.pathsep))]
    return kept | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "TOKENIZERS_PARALLELISM": "false"}


def _raise_failure(failed: Path, code: int | None, log: Path) -> None:
    if code == 0:
        return
    if failed.is_file() and (found := failed.read_bytes()):
        told = orjson.loads(found)
        kind = getattr(errors, str(told.get("kind")), InsightvError)
        plain = isinstance(kind, type) and issubclass(kind, InsightvError) and kind is not Interrupted
        raise (kind if plain and kind is not errors.ModelError else InsightvError)(str(told.get("message")))
    if code == errors.StorageFull.exit_code:  # there was no room to say so
        raise errors.StorageFull(f"{str(log.parent)!r} cannot be written; make room and run again, nothing is lost")
    cure = " (lower batch_size, or set gradient_checkpointing)" if code == -9 else ""
    raise InsightvError(
        f"the training process {how_ended(code)}{cure}; run again to continue from its last complete checkpoint. The "
        f"end of {str(log)!r}:\n{end_of(log, _TAIL).strip()}"
    )


def read_job(file: Path) -> Job:
    """The job of a file.

    Raises:
        InputError: it cannot be read.
        ConfigError: a setting is wrong.
    """
    try:
        return Job.model_validate(orjson.loads(file.read_bytes()))
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"the job {str(file)!r} cannot be read: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"the job {str(file)!r} is wrong: {error}") from error


def main(arguments: list[str]) -> int:
    """Do the job of a file; an error of insightv's is also written beside the log, for the parent."""
    if len(arguments) != 1:
        print("usage: python -m insightv.train.finetune.process JOB.json", file=sys.stderr)
        return 2
    file = Path(arguments[0])
    end_with_leash()
    try:
        job = read_job(file)
        from insightv.train.finetune.fit import train

        print(f"trained: {train(job)}", flush=True)
        return 0
    except InsightvError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if os.environ.get("RANK", "0") == "0":
            told = {"kind": type(error).__name__, "message": str(error)}
            with suppress(OSError):  # on a full disk the exit code says it
                file.with_name(FAILED).write_bytes(orjson.dumps(told))
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
