"""How much of a training is left in the type on disk is measured, and said where it is little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from insightv.records import PreferencePair
from insightv.train.finetune.dpo_role import write_pairs
from insightv.train.finetune.fit import train
from insightv.train.finetune.models import load_model, load_processor
from insightv.train.finetune.rounding import kept_share, rounding_warning
from insightv.train.finetune.settings import Job, settings_of

from .small import quick

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch and trl, about their own insides


def test_a_change_below_half_a_step_is_gone_and_a_large_one_stays() -> None:
    torch.manual_seed(0)
    before = torch.randn(1000).bfloat16().float()
    change = torch.randn(1000)
    assert kept_share([(before, before + 1e-6 * change)], torch.bfloat16) == pytest.approx(0, abs=0.05)
    assert kept_share([(before, before + change)], torch.bfloat16) == pytest.approx(1, abs=0.01)
    assert kept_share([(before, before + 1e-6 * change)], torch.float32) == pytest.approx(1, abs=0.1)
    assert kept_share([(before, before)], torch.bfloat16) is None
    assert rounding_warning(0.9, "bfloat16") is None
    assert "3% is left in the bfloat16" in str(rounding_warning(0.03, "bfloat16"))


def half(base: Path, folder: Path) -> Path:
    """The model in bfloat16, as most are published."""
    model: Any = load_model(base, quick())
    model.to(torch.bfloat16).save_pretrained(folder)
    processor: Any = load_processor(base)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_says_how_much_the_type_on_disk_keeps(
    base: Path, pairs: list[PreferencePair], tmp_path: Path, method: Any
) -> None:
    write_pairs(pairs, tmp_path / "pairs")
    base = half(base, tmp_path / "base")

    def kept(policy: Path, rate: float, dtype: str | None = None) -> tuple[float | None, list[str]]:
        out = tmp_path / f"{rate}-{dtype}-{policy.name}"
        settings = quick("preference", method=method, learning_rate=rate, save_dtype=dtype, warmup=0.0)
        job = Job(stage="preference", policy=str(policy), data=tmp_path / "pairs", out=out, settings=settings)
        report = json.loads((train(job) / "report.json").read_text())
        return report["change_kept"], report["warnings"]

    share, warnings = kept(base, 1e-6)
    assert share is not None
    assert share < 0.5
    assert any("is left in the bfloat16" in warning for warning in warnings)
    share, _ = kept(base, 3e-2)
    assert share == pytest.approx(1, abs=0.1)
    assert kept(base, 1e-6, "float32")[0] is None
    share, _ = kept(tmp_path / "0.03-None-base", 1e-7)
    assert share is not None
    # Adapters go on in float32, so what is rounded before and after evens out; all weights begin on the grid again.
    assert (share > 0.5) is (method == "lora")


def test_adapters_take_a_higher_rate_by_default() -> None:
    assert settings_of("preference").learning_rate == 5e-6
    assert settings_of("preference", "paper").learning_rate == 5e-7
