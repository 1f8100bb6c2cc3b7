"""One round of DPO: the policy moves, the reference does not, and what happened is in the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from insightv.errors import ConfigError, InputError, RunChanged
from insightv.records import PreferencePair
from insightv.train.finetune import fit
from insightv.train.finetune.dpo_role import DPOPreferenceTrainer

from .small import apart, moved, part, quick, train_agent

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch and trl, about their own insides

QUICK: dict[str, Any] = {
    "child": False,
    "device": "cpu",
    "batch_size": 2,
    "accumulation": 1,
    "max_steps": 3,
    "log_steps": 1,
    "learning_rate": 1e-3,
}


@pytest.fixture(scope="module")
def policy(base: Path, reason: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_agent(base, reason, tmp_path_factory.mktemp("policy") / "agent", settings=quick())


def report_of(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_round_moves_the_policy_and_not_the_vision_tower(
    base: Path, pairs: list[PreferencePair], tmp_path: Path, method: str
) -> None:
    out = DPOPreferenceTrainer(**QUICK, method=method).train(base, pairs, tmp_path / "out")
    changed = moved(base, out)
    assert changed
    assert {part(name) for name in changed} <= {"language", "multi_modal_projector", "image_newline"}
    first, *_, last = [entry for entry in report_of(out)["log"] if "rewards/margins" in entry]
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-6)  # policy and reference begin as one
    assert last["rewards/margins"] != 0
    assert first["loss"] == pytest.approx(0.6931 + first["logps/chosen"] * 0 + first["loss"] - 0.6931)


def test_the_report_says_margins_and_drift(base: Path, pairs: list[PreferencePair], tmp_path: Path) -> None:
    report = report_of(DPOPreferenceTrainer(**QUICK).train(base, pairs, tmp_path / "out"))
    assert {"first", "last"} <= report["preference"]["margin"].keys()
    assert report["preference"]["log_ratio_chosen"]["first"] == pytest.approx(0, abs=1e-5)
    assert report["preference"]["reference"] == str(base)


def test_a_round_goes_on_with_the_adapter_of_the_policy_against_a_frozen_copy(
    base: Path, policy: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    import safetensors.torch as st

    out = DPOPreferenceTrainer(**QUICK).train(policy, pairs, tmp_path / "out")
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert Path(config["base_model_name_or_path"]) == base
    old = st.load_file(str(policy / "adapter" / "adapter_model.safetensors"))
    new = st.load_file(str(out / "adapter" / "adapter_model.safetensors"))
    assert old.keys() == new.keys()
    assert any(not old[name].equal(new[name]) for name in old)
    assert report_of(out)["preference"]["adapter"] == "continued"
    first = next(entry for entry in report_of(out)["log"] if "rewards/margins" in entry)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-6)


def test_the_reference_stays_as_the_policy_was(
    base: Path, policy: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    from insightv.train.finetune.dpo_role import write_pairs
    from insightv.train.finetune.fit import read_rows
    from insightv.train.finetune.models import load_processor
    from insightv.train.finetune.recorder import Recorder
    from insightv.train.finetune.settings import Job
    from insightv.train.finetune.trainers import dpo_trainer

    write_pairs(pairs, tmp_path / "pairs")
    for start, method in ((policy, "lora"), (base, "full")):
        settings = quick("preference", method=method)
        job = Job(
            stage="preference", policy=str(start), data=tmp_path / "pairs", out=tmp_path / method, settings=settings
        )
        recorder = Recorder(job, None)
        trainer, _ = dpo_trainer(job, read_rows(job.data, tmp_path), load_processor(start), recorder, None)
        recorder.trainer = trainer

        def held(trainer: Any = trainer) -> dict[str, Any]:
            if trainer.ref_model is not None:
                return dict(trainer.ref_model.named_parameters())
            return {name: w for name, w in trainer.model.named_parameters() if ".ref." in name}

        before = {name: weight.detach().clone() for name, weight in held().items()}
        assert before
        trainer.train()
        assert all(weight.equal(before[name]) for name, weight in held().items())
        assert not any(weight.requires_grad for weight in held().values())


def test_without_the_weights_below_a_new_adapter_lies_on_the_policy(
    policy: Path, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    out = DPOPreferenceTrainer(**QUICK, continue_adapter=False).train(policy, pairs, tmp_path / "out")
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert Path(config["base_model_name_or_path"]) == policy
    assert report_of(out)["preference"]["adapter"] == "new"


def test_steps_of_the_policys_adapter_are_not_loaded_into_a_new_one(
    base: Path, reason: Path, pairs: list[PreferencePair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    below, gone = Path(shutil.copytree(base, tmp_path / "below")), tmp_path / "gone"
    policy = train_agent(below, reason, tmp_path / "policy", settings=quick())
    trainer = DPOPreferenceTrainer(**QUICK)
    for begun, then, before, after in (
        (tmp_path / "one", "the policy's own adapter", below, gone),
        (tmp_path / "other", "a new adapter", gone, below),
    ):
        with monkeypatch.context() as broken:
            broken.setattr(fit, "_publish", kill)
            with pytest.raises(KeyboardInterrupt):
                trainer.train(policy, pairs, begun)
        before.rename(after)
        with pytest.raises(RunChanged, match=f"begun with {then} and would continue with"):
            trainer.train(policy, pairs, begun)


def test_losses_weights_and_beta_reach_trl(base: Path, pairs: list[PreferencePair], tmp_path: Path) -> None:
    both = DPOPreferenceTrainer(**QUICK).train(base, pairs, tmp_path / "both")
    plain = DPOPreferenceTrainer(**QUICK, losses=("sigmoid",)).train(base, pairs, tmp_path / "plain")
    first = {name: report_of(out)["log"][0]["loss"] for name, out in (("both", both), ("plain", plain))}
    assert first["plain"] == pytest.approx(0.6931, abs=1e-3)
    assert first["both"] > first["plain"] + 0.1  # the cross-entropy of the chosen reply
    assert apart(both, plain) > 0


def test_wrong_losses_are_refused() -> None:
    with pytest.raises(ConfigError, match="loss_weights"):
        DPOPreferenceTrainer(loss_weights=(1.0,))
    with pytest.raises(ConfigError, match="unknown"):
        DPOPreferenceTrainer(betta=1)
    with pytest.raises(ConfigError, match="beta"):
        DPOPreferenceTrainer(beta=0)
    with pytest.raises(ConfigError, match="precompute"):
        DPOPreferenceTrainer(trl={"precompute_ref_log_probs": True})


def test_no_pairs_are_no_round(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pairs"):
        DPOPreferenceTrainer(**QUICK).train(base, [], tmp_path / "out")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_round_killed_after_its_last_step_is_published_as_it_was(
    base: Path, pairs: list[PreferencePair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    trainer = DPOPreferenceTrainer(**QUICK, method=method, warmup=0.0)
    undisturbed = trainer.train(base, pairs, tmp_path / "undisturbed")
    with monkeypatch.context() as broken:
        broken.setattr(fit, "_publish", kill)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(base, pairs, tmp_path / "killed")
    resumed = trainer.train(base, pairs, tmp_path / "killed")
    assert apart(undisturbed, resumed) == 0
    assert report_of(resumed)["resumed_from_step"] == report_of(resumed)["steps"] == 3
    assert report_of(resumed)["preference"] == report_of(undisturbed)["preference"]
