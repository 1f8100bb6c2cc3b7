"""What the card of a trained model says it was trained from."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from insightv.train.finetune.model_card import model_card
from insightv.train.finetune.settings import Job

from .small import quick

CACHED = "/home/me/.cache/huggingface/hub/models--owner--my-charts-v2/snapshots/" + "0123456789" * 4


@pytest.mark.parametrize(
    ("base", "model", "policy"),
    [
        (CACHED, "owner/my-charts-v2", "owner/my-charts-v2@" + "0123456789" * 4),
        ("/models/a@b", "/models/a@b", "/models/a@b"),
        ("owner/name", "owner/name", "owner/name"),
    ],
)
def test_a_model_of_the_hub_is_told_by_name_and_commit(base: str, model: str, policy: str, tmp_path: Path) -> None:
    job = Job(stage="reason", policy=base, data=tmp_path, out=tmp_path / "out", settings=quick())
    card = model_card(job, base, {"steps": 1})
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["base_model"] == model
    assert header["insightv"]["policy"] == policy
    assert "/home/me" not in card
