"""Presets, what may be set, and what a model is estimated to need."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from insightv.errors import ConfigError
from insightv.train.finetune.settings import Job, PreferenceSettings, Stage, settings_of
from insightv.train.finetune.trl_options import check_trl

from .small import quick


def test_the_paper_preset_has_the_papers_numbers() -> None:
    reason, summary, dpo = (settings_of(stage, "paper") for stage in ("reason", "summary", "preference"))
    assert (reason.epochs, reason.learning_rate) == (2, 5e-6)
    assert (summary.epochs, summary.learning_rate) == (1, 1e-5)
    assert (dpo.epochs, dpo.learning_rate) == (1, 5e-7)
    for settings in (reason, summary, dpo):
        assert (settings.method, settings.schedule, settings.warmup, settings.weight_decay) == (
            "full",
            "cosine",
            0.05,
            0,
        )
        assert (settings.max_length, settings.train_projector) == (12288, True)
    assert isinstance(dpo, PreferenceSettings)
    assert (dpo.beta, dpo.losses, dpo.weights) == (0.1, ("sigmoid", "sft"), (1.0, 1.0))
    assert [s.batch_size * s.accumulation * 8 for s in (reason, summary, dpo)] == [64, 16, 64]


def test_changes_go_on_top_of_a_preset() -> None:
    assert settings_of("reason", "paper", method="lora", epochs=1).method == "lora"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epoch": 2}, "epoch: unknown"),
        ({"learning_rate": 0}, "learning_rate = 0"),
        ({"method": "prefix"}, "method = 'prefix'"),
        ({"packing": True}, "cannot pack"),
        ({"trl": {"learning_rate": 1}}, "use the setting learning_rate"),
        ({"trl": {"save_total_limit": 1}}, "keep_checkpoints"),
        ({"trl": {"loss_type": "sft"}}, "loss_type = 'sft' .* nll, dft"),
        ({"trl": {"model_init_kwargs": {"attn_implementation": "eager"}}}, "would pass over them"),
        ({"trl": {"chat_template_path": "other.jinja"}}, "the chat template of its base"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        settings_of("reason", **wrong)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("loss_type", "losses"),
        ("loss_weights", "loss_weights"),
        ("num_train_epochs", "epochs"),
        ("beta", "beta"),
        ("lr_scheduler_type", "schedule"),
        ("warmup_steps", "warmup"),
        ("use_cpu", "device"),
    ],
)
def test_an_option_of_trls_that_has_a_setting_is_refused_with_its_name(name: str, ours: str) -> None:
    with pytest.raises(ConfigError, match=rf"trl\.{name} cannot be set: use the setting {ours}$"):
        settings_of("preference", trl={name: ["ipo"]})
    assert settings_of("reason", trl={"loss_type": "dft"}).trl  # that of supervised training has no setting


@pytest.mark.parametrize(
    ("agent", "table", "told"),
    [
        ("reasoning", {"optim": "adamm"}, r"\[train.reasoning\]: TRL refuses .*adamm"),
        ("preference", {"fp16": True}, "fp16 and bf16"),
        ("preference", {"ld_alpa": 0.5}, "did you mean 'ld_alpha'"),
    ],
)
def test_what_trl_would_refuse_is_refused_before_anything_is_trained(
    agent: str, table: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        check_trl(agent, table, bf16=True)
    check_trl(
        agent, {"max_grad_norm": 0.5, "label_smoothing": 0.1} if agent == "preference" else {"neftune_noise_alpha": 5.0}
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trl": {"save_strategy": "no"}}, "begins anew"),
        ({"trl": {"eval_strategy": "steps"}}, "heldout"),
        (
            {"losses": ["exo_pair"]},
            "^training settings: losses names exo_pair, which TRL takes with trl.label_smoothing above 0",
        ),
        ({"losses": ["aot"], "trl": {"use_weighting": True}}, "names aot, which .* trl.use_weighting"),
        ({"trl": {"use_weighting": True}}, "names sft, which .* trl.use_weighting"),
        ({"losses": ["hinge"], "trl": {"use_weighting": True}}, "names hinge, which .* trl.use_weighting"),
        ({"trl": {"f_divergence_type": "kl"}}, "f_divergence_type = 'kl' .* reverse_kl, forward_kl"),
        ({"losses": ["nca_pair"], "trl": {"f_divergence_type": "forward_kl"}}, "names nca_pair, which .* 'forward_kl'"),
        ({"trl": {"train_sampling_strategy": "group_by_length"}}, "may be random, sequential"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        settings_of("preference", **changes)


def test_settings_that_go_together_are_taken() -> None:
    assert settings_of("preference", losses=["exo_pair"], trl={"label_smoothing": 1e-3}).trl
    assert settings_of("preference", losses=["sigmoid"], trl={"use_weighting": True}).trl
    assert settings_of("preference", trl={"f_divergence_type": "js_divergence"}).trl
    assert settings_of("preference", losses=["nca_pair"], trl={"f_divergence_type": "reverse_kl"}).trl
    assert settings_of("reason", trl={"train_sampling_strategy": "sequential", "loss_type": "dft"}).trl


def test_unknown_presets_and_stages_are_told() -> None:
    with pytest.raises(ConfigError, match="default, paper"):
        settings_of("reason", "papers")
    with pytest.raises(ConfigError, match="reason, summary, preference"):
        settings_of("reasons")  # type: ignore[arg-type] # wrong on purpose


def test_a_job_goes_to_json_and_back() -> None:
    job = Job(
        stage="preference", policy="p", data=Path("d"), out=Path("o"), settings=settings_of("preference", beta=0.3)
    )
    back = Job.model_validate_json(job.model_dump_json())
    assert back == job
    assert back.preference.beta == 0.3
    with pytest.raises(ConfigError):
        _ = Job(stage="reason", policy="p", data=Path("d"), out=Path("o"), settings=settings_of("reason")).preference


def test_what_does_not_change_the_result_is_no_part_of_its_identity() -> None:
    one, other = quick(), quick(log_steps=5, save_steps=7, keep_checkpoints=3, memory_gib=1)
    assert one.identity() == other.identity()
    assert one.identity() != quick(seed=1).identity()


@pytest.mark.filterwarnings("ignore")  # of torch, about its own insides
def test_memory_is_estimated_from_the_model_without_loading_it(base: Path) -> None:
    from transformers import AutoConfig

    from insightv.train.finetune.memory import job_memory
    from insightv.train.finetune.models import load_model, trained_weights

    config: Any = AutoConfig.from_pretrained(str(base))
    assert job_memory(config, quick()) is None
    model = load_model(base, quick())
    weights = sum(weight.numel() for weight in model.parameters())
    full = job_memory(config, quick(method="full", memory_gib=2))
    assert full is not None
    assert full.fixed == 4 * weights + 12 * sum(weight.numel() for weight in trained_weights(model).values())
    assert full.limit == 2 * 2**30
    lora = job_memory(config, quick(memory_gib=2, lora_rank=1))
    saving = job_memory(config, quick(memory_gib=2, gradient_checkpointing=True))
    assert lora is not None
    assert saving is not None
    assert 4 * weights < lora.fixed < full.fixed
    assert saving.per_token < full.per_token


@pytest.mark.filterwarnings("ignore")  # of torch, about its own insides
def test_what_processes_share_out_counts_once(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoConfig

    from insightv.train.finetune.memory import job_memory
    from insightv.train.finetune.models import load_model, trained_weights

    config: Any = AutoConfig.from_pretrained(str(base))
    model = load_model(base, quick())
    weights = 4 * sum(weight.numel() for weight in model.parameters())
    moving = 12 * sum(weight.numel() for weight in trained_weights(model).values())

    def fixed(stage: Stage = "reason", processes: int | None = None, **changes: Any) -> float:
        memory = job_memory(config, quick(stage, memory_gib=2, **({"method": "full"} | changes)), processes)
        assert memory is not None
        return memory.fixed

    for name in ("fsdp2", "zero3"):
        assert fixed(accelerate_config=name, num_processes=8) == (weights + moving) // 8
        assert fixed(accelerate_config=name, processes=4) == (weights + moving) // 4  # as the file says
        assert fixed("preference", accelerate_config=name, processes=4) == (2 * weights + moving) // 4
    assert fixed(accelerate_config="zero2", num_processes=8) == weights + moving // 8
    assert fixed(num_processes=8) == fixed(accelerate_config="my.yaml", num_processes=8) == weights + moving
    assert fixed("preference") == 2 * weights + moving
    assert fixed("preference", method="lora") == fixed(method="lora")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=2**30))
    limits = [
        job_memory(config, quick(device="auto", bf16=False, accelerate_config=name))
        for name in (None, "zero3", "my.yaml")
    ]
    assert [memory and memory.limit for memory in limits] == [2**30, 2**30, None]
