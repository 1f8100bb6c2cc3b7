"""How well an embedded model reads, reasons, judges and looks: held-out figures for a model directory.

`python -m tools.tiny.measure DIRECTORY` prints them as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from insightv.tiny import ask as asking
from insightv.tiny import claims, draw, world
from tools.tiny import batches, model, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SEED = 20260101
"""Seed of the held-out questions."""


class Player:
    """A model directory, opened to answer many prompts at once: texts in the chat format, from after the picture."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
        self.net = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self._token: dict[str, int] = {
            token: self.tokenizer.convert_tokens_to_ids(token) for token in self.tokenizer.get_vocab()
        }

    def play(
        self,
        prompts: Sequence[str],
        pixels: Sequence[NDArray[np.float32]],
        *,
        temperature: float = 0.0,
        seed: int = 0,
        limit: int = 260,
        together: int = 64,
    ) -> list[list[str]]:
        """The replies to each prompt (which ends before `<bot>`): one, or in `<steps>` mode the whole chain's.

        `pixels` holds one (3, 84, 84) picture per prompt; `together` prompts are computed at once. Temperature 0 is
        greedy. A reply that does not end within `limit` tokens is left out.
        """
        generator, replies = torch.Generator().manual_seed(seed), []
        for start in range(0, len(prompts), together):
            part = slice(start, start + together)
            replies += self._play(prompts[part], pixels[part], temperature, generator, limit)
        return replies

    @torch.inference_mode()
    def _play(
        self,
        prompts: Sequence[str],
        pixels: Sequence[NDArray[np.float32]],
        temperature: float,
        generator: torch.Generator,
        limit: int,
    ) -> list[list[str]]:
        rows = [self.tokenizer(f"{prompt}<bot>", add_special_tokens=False)["input_ids"] for prompt in prompts]
        image, pad, room = self._token["<image>"], self._token["<pad>"], max(map(len, rows))
        ids = torch.tensor([[pad] * (room - len(row)) + [image] * batches.IMAGE_TOKENS + row for row in rows])
        mask = (ids != pad).long()
        state: dict[str, Any] = {
            "input_ids": ids,
            "pixel_values": torch.from_numpy(np.stack([np.stack([p, p]) for p in pixels])).to(self.net.dtype),
            "image_sizes": torch.full((len(rows), 2), draw.CANVAS * draw.SCALE),
            "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        }
        said: list[list[int]] = [[] for _ in rows]
        for _ in range(limit):
            out = self.net(**state, attention_mask=mask, use_cache=True)
            drawn = self._draw(out.logits[:, -1].float(), temperature, generator)
            for token, row, prompt in zip(drawn, said, prompts, strict=True):
                row.append(self._next(token, row, prompt.startswith("<steps>")))
            if all(row[-1] == pad for row in said):
                break
            mask = torch.cat([mask, torch.ones(len(rows), 1, dtype=torch.long)], 1)
            state = {
                "input_ids": torch.tensor([row[-1:] for row in said]),
                "position_ids": mask.sum(-1, keepdim=True) - 1,
                "past_key_values": out.past_key_values,
            }
        return [self._replies(row) for row in said]

    def _draw(self, logits: torch.Tensor, temperature: float, generator: torch.Generator) -> list[int]:
        if temperature == 0:
            return [int(token) for token in logits.argmax(-1)]
        chances = torch.softmax(logits / temperature, -1)
        return [int(token) for token in torch.multinomial(chances, 1, generator=generator)[:, 0]]

    def _next(self, drawn: int, said: Sequence[int], chain: bool) -> int:
        """The token that follows in one row: the drawn one, or what the user's side of a chain says next."""
        pad, last = self._token["<pad>"], said[-1] if said else -1
        if last == pad:
            return pad
        if last == self._token["<eos>"]:
            if not chain or self._token["<final>"] in said:
                return pad
            summary = len(said) > 1 and said[-2] == self._token['", "action": "summary"}']
            return self._token["<final>" if summary else "<next>"]
        if last in (self._token["<next>"], self._token["<final>"]):
            return self._token["<bot>"]
        return drawn

    def _replies(self, said: Sequence[int]) -> list[str]:
        """The finished replies among the tokens of one row."""
        eos, skip = self._token["<eos>"], {self._token[t] for t in ("<bot>", "<next>", "<final>", "<pad>")}
        replies: list[str] = []
        current: list[int] = []
        for token in said:
            if token == eos:
                replies.append(self.tokenizer.decode(current))
                current = []
            elif token not in skip:
                current.append(token)
        return replies


LOOKS = ("own", "blank", "swapped")


def _pixels(items: Sequence[world.Item], look: str = "own") -> list[NDArray[np.float32]]:
    """The pictures shown: each item's "own", a "blank" one, or "swapped" with the next item's."""
    if look == "blank":
        return [batches.pixels_of(Image.new("RGB", (model.SIDE, model.SIDE), "white"))] * len(items)
    pixels = [batches.pixels_of(item.image) for item in items]
    return pixels[1:] + pixels[:1] if look == "swapped" else pixels


def direct(player: Player, items: Sequence[world.Item], look: str = "own") -> list[bool]:
    """Whether each greedy direct answer is right; for `look` see `_pixels`."""
    replies = player.play([f"<direct>{item.question}" for item in items], _pixels(items, look), limit=8)
    return [bool(reply) and reply[0] == item.answer for reply, item in zip(replies, items, strict=True)]


def read_chain(replies: Sequence[str]) -> tuple[list[dict[str, str]], str] | None:
    """Steps and answer of a chain; None where a reply is not what the format asks for."""
    try:
        steps, final = [json.loads(reply) for reply in replies[:-1]], json.loads(replies[-1])
    except (ValueError, IndexError):
        return None
    actions = [step.get("action") if isinstance(step, dict) else None for step in steps]
    keys = all(isinstance(step, dict) and set(step) == {"title", "content", "action"} for step in steps)
    ends = actions[-1:] == ["summary"] and set(actions[:-1]) <= {"continue"} and len(steps) >= 2
    return (steps, str(final["answer"])) if keys and ends and isinstance(final, dict) and "answer" in final else None


def chains(
    player: Player, items: Sequence[world.Item], temperature: float, seed: int, look: str = "own"
) -> dict[str, Any]:
    """Shares of the sampled chains that keep the format, end right, and are right in every step."""
    shown = _pixels(items, look)
    replies = player.play([f"<steps>{i.question}" for i in items], shown, temperature=temperature, seed=seed)
    parsed = [read_chain(reply) for reply in replies]
    kinds: dict[str, list[bool]] = defaultdict(list)
    right, sound = [], []
    for item, path in zip(items, parsed, strict=True):
        right.append(path is not None and path[1] == item.answer)
        kinds[item.meta["kind"]].append(right[-1])
        sound.append(right[-1] and path is not None and _sound([s["content"] for s in path[0]], item))
    return {
        "well formed": _share([path is not None for path in parsed]),
        "right": _share(right),
        "right in every step": _share(sound),
        "right by kind": {kind: _share(values) for kind, values in sorted(kinds.items())},
        "different texts": len({json.dumps(reply) for reply in replies}),
        "mean steps": round(fmean(len(path[0]) for path in parsed if path), 2) if any(parsed) else None,
    }


def _sound(texts: list[str], item: world.Item) -> bool:
    found = claims.read(item.meta["chart"], texts, item.answer)
    return all(step and all(claim.right for claim in step) for step in found)


def _share(values: Sequence[bool]) -> float:
    return round(100 * sum(values) / len(values), 1) if values else 0.0


def reasoned(player: Player, items: Sequence[world.Item], temperature: float, seed: int) -> dict[str, float]:
    """The same shares for paths written as one text."""
    prompts = [f"<reason>{item.question}" for item in items]
    replies = player.play(prompts, _pixels(items), temperature=temperature, seed=seed)
    formed, right, sound = [], [], []
    for item, reply in zip(items, replies, strict=True):
        text = reply[0] if reply else ""
        formed.append(text.startswith("<thoughts>\n### ") and text.endswith("\n</thoughts>"))
        inner = text.removeprefix("<thoughts>\n### ").removesuffix("\n</thoughts>")
        parts = [part.partition("\n")[2] for part in inner.split("\n### ")]
        right.append(formed[-1] and parts[-1].rstrip().endswith(f"The answer is {item.answer}."))
        sound.append(right[-1] and _sound(parts, item))
    return {"well formed": _share(formed), "right": _share(right), "right in every step": _share(sound)}


def judged(player: Player, items: Sequence[world.Item], fault: str | None = None) -> float:
    """Share of right answers of the summary mode behind paths that are right, or wrong by `fault`.

    "misread": the path read other values; "slip": it read right and worked with other values.
    """
    rng, prompts, kept = random.Random(SEED), [], []
    for item in items:
        chart, kind, ask = item.meta["chart"], item.meta["kind"], item.meta["ask"]
        other = batches.spoil(chart, rng)
        if fault and asking.answer(other, kind, ask) == item.answer:
            continue
        steps = tell.steps(other if fault == "misread" else chart, kind, ask, rng, taken=other if fault else None)
        prompts.append(f"<judge>QUESTION: {item.question}\n\nREASONING:\n{batches.thoughts(steps)}")
        kept.append(item)
    replies = player.play(prompts, _pixels(kept), limit=8)
    return _share([bool(reply) and reply[0] == item.answer for reply, item in zip(replies, kept, strict=True)])


def measure(folder: Path, n: int = 256) -> dict[str, Any]:
    """All figures for the model in `folder`, in percent, on `n` held-out questions (each family for itself `n`)."""
    started, player = time.monotonic(), Player(folder)
    items = list(world.make_questions(n, SEED, "heldout"))
    described = player.play([f"<direct>{batches.DESCRIBE}"] * n, _pixels(items), limit=60)
    told = [bool(r) and r[0] == tell.describe(item.meta["chart"]) for r, item in zip(described, items, strict=True)]
    result: dict[str, Any] = {"questions": n, "described without error": _share(told)}
    for family in asking.FAMILIES:
        some = list(world.make_questions(n, SEED, "heldout", family))
        result[f"direct, {family}"] = {look: _share(direct(player, some, look)) for look in LOOKS}
    some = list(world.make_questions(n, SEED, "heldout", "perception"))
    result["steps, perception"] = {look: chains(player, some, 0.0, 0, look)["right"] for look in LOOKS}
    result["steps, temperature 0"] = chains(player, items, 0.0, 0)
    for temperature in (0.7, 1.0):
        result[f"steps, temperature {temperature}"] = chains(player, items, temperature, 1)
    result["reason, temperature 0.7"] = reasoned(player, items, 0.7, 1)
    result["judge, right paths"] = judged(player, items)
    for fault in ("misread", "slip"):
        result[f"judge, wrong paths: {fault}"] = judged(player, items, fault)
    result["parameters"] = sum(value.numel() for value in player.net.parameters())
    result["seconds"] = round(time.monotonic() - started, 1)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Held-out figures of an embedded model.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--questions", type=int, default=256)
    options = parser.parse_args()
    print(json.dumps(measure(options.directory, options.questions), indent=2))
