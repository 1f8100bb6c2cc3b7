"""Training in a process of its own: errors come back as they are, and a kill at any moment costs no finished step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from insightv.backends.checkpoints import MARKER
from insightv.errors import ConfigError, InputError, InsightvError, Interrupted
from insightv.records import PreferencePair
from insightv.train.finetune.dpo_role import DPOPreferenceTrainer, write_pairs
from insightv.train.finetune.process import accelerate_file, launcher, run_job
from insightv.train.finetune.settings import Job, Stage

from .small import apart, moved, quick, train_agent

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch and trl, about their own insides


def job_of(base: Path, data: Path, out: Path, stage: Stage = "reason", **changes: Any) -> Job:
    return Job(stage=stage, policy=str(base), data=data, out=out, settings=quick(stage, **changes))


def test_an_error_in_the_child_is_the_same_error_here(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="parquet"):
        run_job(job_of(base, tmp_path, tmp_path / "out"))
    assert "parquet" in (tmp_path / "out.training" / "log.txt").read_text()


def test_a_job_that_is_wrong_is_told(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"stage": "reason", "settings": {"epoch": 3}}))
    done = subprocess.run(
        [sys.executable, "-m", "insightv.train.finetune.process", str(tmp_path / "job.json")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "epoch" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_signal_or_budget_ends_the_child(base: Path, reason: Path, tmp_path: Path) -> None:
    started = time.monotonic()

    def stop() -> None:
        if time.monotonic() - started > 0.3:
            raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        run_job(job_of(base, reason, tmp_path / "out"), stop)
    assert time.monotonic() - started < 20
    assert not (tmp_path / "out").exists()


def test_accelerate_is_called_for_more_than_one_process_or_with_a_file(base: Path, tmp_path: Path) -> None:
    assert launcher(job_of(base, tmp_path, tmp_path)) == [sys.executable]
    two = launcher(job_of(base, tmp_path, tmp_path, num_processes=2))
    assert two[2] == "torch.distributed.run"
    many = launcher(job_of(base, tmp_path, tmp_path, num_processes=2, device="auto"))
    assert many[2] == "accelerate.commands.launch"
    assert many[many.index("--num_processes") + 1] == "2"
    filed = launcher(job_of(base, tmp_path, tmp_path, accelerate_config="zero3"))
    assert filed[filed.index("--config_file") + 1].endswith("accelerate/zero3.yaml")
    with pytest.raises(ConfigError, match="fsdp2, zero2, zero3"):
        accelerate_file("zero9")


@pytest.mark.parametrize("name", ["fsdp2", "zero2", "zero3"])
def test_the_files_for_accelerate_are_read_by_it(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(accelerate_file(name)))
    assert str(getattr(config.distributed_type, "value", config.distributed_type)) in ("FSDP", "DEEPSPEED")


def test_more_processes_than_run_are_refused(base: Path, reason: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_processes = 2, but 1 is running"):
        train_agent(base, reason, tmp_path / "out", settings=quick(num_processes=2))


def kill_when(job: Job, ready: Any) -> None:
    """Start the child, and kill its whole group with -9 at the moment that `ready` sees."""
    from insightv.train.finetune.process import _environment, absolute

    job.work.mkdir(parents=True, exist_ok=True)
    (job.work / "job.json").write_text(absolute(job).model_dump_json())
    command = [sys.executable, "-m", "insightv.train.finetune.process", str(job.work / "job.json")]
    child = subprocess.Popen(command, env=_environment(), start_new_session=True, stderr=subprocess.DEVNULL)
    while child.poll() is None and not ready():
        time.sleep(0.0005)
    assert child.poll() is None, "the training ended before it could be killed"
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def losses(out: Path) -> list[float]:
    return [entry["loss"] for entry in json.loads((out / "report.json").read_text())["log"] if "loss" in entry]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("stage", "method"), [("reason", "lora"), ("reason", "full"), ("preference", "full"), ("preference", "lora")]
)
def test_killed_during_a_save_and_resumed_it_ends_as_if_undisturbed(
    base: Path, reason: Path, pairs: list[PreferencePair], tmp_path: Path, stage: Stage, method: str
) -> None:
    data = reason
    if stage == "preference":
        data = tmp_path / "pairs"
        write_pairs(pairs, data)
        if method == "lora":  # a policy whose own adapter goes on, against a frozen copy of it
            base = train_agent(base, reason, tmp_path / "policy", settings=quick())
    changes: dict[str, Any] = {"method": method, "max_steps": 6, "save_steps": 2, "learning_rate": 1e-4}
    calm = run_job(job_of(base, data, tmp_path / "calm", stage, **changes))
    job = job_of(base, data, tmp_path / "killed", stage, **changes)
    half = job.work / "checkpoints" / "checkpoint-4"
    kill_when(job, half.is_dir)
    assert half.is_dir()
    assert not (half / MARKER).exists(), "the save was over before the kill; the test says nothing"
    assert (job.work / "checkpoints" / "checkpoint-2" / MARKER).is_file()
    out = run_job(job)
    report = json.loads((out / "report.json").read_text())
    assert report["resumed_from_step"] == 2
    assert report["half_saved_and_not_used"] == ["checkpoint-4"]
    assert report["steps"] == 6
    assert apart(calm, out) < 1e-5
    assert losses(out) == pytest.approx(losses(calm), abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_together_on_the_cpu(
    base: Path, reason: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    steps: dict[str, Any] = {"max_steps": 4, "save_steps": 2}
    two = run_job(job_of(base, reason, tmp_path / "two", num_processes=2, batch_size=1, **steps))
    one = train_agent(base, reason, tmp_path / "one", settings=quick(**steps))
    assert moved(base, two)
    assert losses(two) == pytest.approx(losses(one), abs=2e-3)
    write_pairs(pairs, tmp_path / "pairs")
    for name, processes in (("dpo-two", 2), ("dpo-one", 1)):
        changes: dict[str, Any] = {**steps, "num_processes": processes, "batch_size": 3 - processes}
        run_job(job_of(base, tmp_path / "pairs", tmp_path / name, "preference", **changes))
    assert losses(tmp_path / "dpo-two") == pytest.approx(losses(tmp_path / "dpo-one"), abs=2e-2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_our_file_for_fsdp2_trains_as_one_process_does(base: Path, reason: Path, tmp_path: Path, method: str) -> None:
    ours = accelerate_file("fsdp2").read_text()
    on_cpu = ours.replace("use_cpu: false", "use_cpu: true").replace("mixed_precision: bf16", 'mixed_precision: "no"')
    assert on_cpu != ours
    (tmp_path / "fsdp2.yaml").write_text(on_cpu)
    steps: dict[str, Any] = {"method": method, "max_steps": 4, "save_steps": 2}
    sharded: dict[str, Any] = {"num_processes": 2, "batch_size": 1}
    sharded |= {"accelerate_config": str(tmp_path / "fsdp2.yaml")}
    two = run_job(job_of(base, reason, tmp_path / "two", **steps, **sharded))
    one = run_job(job_of(base, reason, tmp_path / "one", **steps))
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    assert apart(one, two) < 1e-4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_process_killed_from_outside_is_told_with_its_log(base: Path, reason: Path, tmp_path: Path) -> None:
    job = job_of(base, reason, tmp_path / "out", max_steps=5000, save_steps=5000)

    def kill() -> None:
        while not (found := (job.work / "checkpoints").is_dir()):
            time.sleep(0.05)
        assert found
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and str(job.work).encode() in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)
                return

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(InsightvError, match="was killed by SIGKILL; out of memory is the likely cause"):
        run_job(job)
    thread.join()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_settings_of_preferences_reach_the_child(base: Path, pairs: list[PreferencePair], tmp_path: Path) -> None:
    made = DPOPreferenceTrainer(device="cpu", batch_size=2, max_steps=1, log_steps=1, learning_rate=1e-3, beta=0.7)
    report = json.loads((made.train(base, pairs, tmp_path / "second") / "report.json").read_text())
    assert report["preference"]["beta"] == 0.7
