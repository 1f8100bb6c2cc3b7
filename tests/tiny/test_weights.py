"""The weights in the repository: their size, that they load as any model does, and that they really look."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from insightv.backends.model_folder import EMBEDDED, embedded_weights
from insightv.tiny import world
from tools.tiny import measure, recipe

QUESTIONS = 48
"""Held-out questions per look. Guessing a value gives about one in nine."""
LEAST = {("teacher", "steps"): 60, ("teacher", "direct"): 30, ("base", "steps"): 0, ("base", "direct"): 30}
"""Percent of values that each model has right, at least, with the picture before it; the base knows no steps."""


@pytest.fixture(scope="module", params=EMBEDDED)
def folder(request: pytest.FixtureRequest) -> Path:
    return embedded_weights(request.param)


@pytest.fixture(scope="module")
def player(folder: Path) -> measure.Player:
    return measure.Player(folder)


def test_files_are_small() -> None:
    sizes = {
        path: path.stat().st_size for name in EMBEDDED for path in embedded_weights(name).rglob("*") if path.is_file()
    }
    assert max(sizes.values()) <= 16_000_000
    assert sum(sizes.values()) <= 24_000_000


def test_parameters(player: measure.Player) -> None:
    assert sum(value.numel() for value in player.net.parameters()) <= 8_000_000


def test_the_log_stands_beside_the_weights(folder: Path) -> None:
    log = [json.loads(line) for line in (folder / "training.jsonl").read_text("utf-8").splitlines()]
    assert [row["mix"] for row in log if "mix" in row] == [list(stage.mix) for stage in recipe.RECIPES[folder.name]]
    figures = json.loads((folder / "measured.json").read_text("utf-8"))
    looks = figures[{"teacher": "steps, perception", "base": "direct, perception"}[folder.name]]
    assert looks["own"] > 2 * looks["swapped"]


@pytest.mark.parametrize("way", ["steps", "direct"])
def test_it_looks(folder: Path, player: measure.Player, way: str) -> None:
    """With its own picture it reads values; with a blank one or another chart's it can only guess."""
    items = [item for item in world.make_questions(300, 17, "heldout", "perception") if item.meta["kind"] == "value"]
    items = items[:QUESTIONS]
    right: dict[str, float] = {}
    for look in measure.LOOKS:
        if way == "steps":
            right[look] = measure.chains(player, items, 0.0, 0, look)["right"]
        else:
            right[look] = 100 * sum(measure.direct(player, items, look)) / len(items)
    assert right["own"] > LEAST[folder.name, way], right
    assert max(right["blank"], right["swapped"]) < 26, right


def test_transformers_loads_it_and_it_writes_a_step(folder: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(folder)
    net: Any = AutoModelForImageTextToText.from_pretrained(folder)
    item = next(world.make_questions(1, 3, "heldout"))
    user = [{"type": "image"}, {"type": "text", "text": item.question}]
    messages = [{"role": "system", "content": 'Keys: "title", "content", "action".'}, {"role": "user", "content": user}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(images=item.image, text=text, return_tensors="pt").to(net.dtype)
    said = net.generate(**inputs, max_new_tokens=80, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    step = json.loads(processor.tokenizer.decode(said, skip_special_tokens=True))
    assert set(step) == {"title", "content", "action"}
    assert step["action"] in ("continue", "summary")


def test_a_picture_from_elsewhere_is_taken(player: measure.Player) -> None:
    """A photograph's shape and size do not matter to the processor; the answer is then worth nothing, but there."""
    from transformers import AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(player.net.name_or_path)
    inputs = processor(
        images=Image.effect_noise((640, 333), 80).convert("RGB"), text="<image><direct>What?<bot>", return_tensors="pt"
    )
    said = player.net.generate(**inputs.to(player.net.dtype), max_new_tokens=4, do_sample=False)
    assert said.shape[1] > inputs["input_ids"].shape[1]
