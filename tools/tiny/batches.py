"""Training batches for the embedded model, made while training: charts, conversations about them, and tensors.

Several conversations about one chart share one sequence: the picture comes first, each conversation sees the picture
and itself, and counts its positions from the picture's end. The model cannot tell this from separate sequences (the
picture stands first in the chat format), and the picture is computed once for all of them.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from insightv.tiny import ask as asking
from insightv.tiny import draw, world
from tools.tiny import model, tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

IMAGE_TOKENS = 78
"""Placeholders of one picture: 36 patches of the whole, 36 of its one tile, 6 row ends."""
ROOM = 270
"""Tokens of conversations behind one picture at most; a conversation that does not fit any more is left out."""
DESCRIBE = "Describe the chart."
DRILL = "Work with the chart."
NO_REASONING = "(There is no reasoning. Answer from the image.)"
"""What the summary agent is shown in place of a path that has no step."""
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


@dataclass(frozen=True)
class Batch:
    """Arrays of `b` charts and `t` tokens.

    `pixels` (b, 3, 84, 84) float32, normalised as the processor does, or None for texts without pictures; `ids`,
    `positions` (b, t) int64; `mask` (b, 1, t, t) bool, true where the row's token sees the column's; `labels` (b, t)
    int64: the token itself where it is part of a reply, else -100; `weights` (b, t) float32: of each label in the loss.
    """

    pixels: NDArray[np.float32] | None
    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    mask: NDArray[np.bool_]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]


def pixels_of(image: Image.Image) -> NDArray[np.float32]:
    """(3, 84, 84): the square picture as the processor hands it to the vision tower."""
    small = image.resize((model.SIDE, model.SIDE), Image.Resampling.BICUBIC)
    array = (np.asarray(small, dtype=np.float32) / 255 - _MEAN) / _STD
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def steps_text(question: str, steps: Sequence[tuple[str, str]], answer: str) -> str:
    """A whole chain in the chat format, from after the picture: JSON steps, then the final answer."""
    text = f"<steps>{question}"
    for place, (title, content) in enumerate(steps):
        action = "summary" if place == len(steps) - 1 else "continue"
        reply = json.dumps({"title": title, "content": content, "action": action})
        text += f"{'<next>' if place else ''}<bot>{reply}<eos>"
    return f"{text}<final><bot>{json.dumps({'answer': answer})}<eos>"


def thoughts(steps: Sequence[tuple[str, str]]) -> str:
    """The steps as the one text that the reasoning agent writes."""
    return "<thoughts>\n" + "".join(f"### {title}\n{content}\n" for title, content in steps) + "</thoughts>"


def spoil(chart: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
    """The chart with one to three of its values changed: what a path misread."""
    values = [list(r) for r in chart["values"]] if chart["kind"] == "table" else [list(chart["values"])]
    for _ in range(rng.randint(1, 3)):
        row = rng.choice(values)
        row[rng.randrange(len(row))] = rng.randint(1, 9)
    return {**chart, "values": values if chart["kind"] == "table" else values[0]}


def slip(steps: Sequence[tuple[str, str]], answer: str, rng: random.Random) -> list[tuple[str, str]]:
    """The steps with another result at the end of the working; as they are where the answer is no number."""
    if not answer.isdigit():
        return list(steps)
    wrong = rng.choice([near for near in range(int(answer) - 2, int(answer) + 3) if near >= 0 and near != int(answer)])
    ends = ("= ", "That is ", "The answer is ")

    def change(text: str) -> str:
        for end in ends:
            text = text.replace(f"{end}{answer}.", f"{end}{wrong}.")
        return text

    return [(title, change(text)) for title, text in steps]


def judged(chart: Mapping[str, Any], kind: str, ask: Mapping[str, Any], rng: random.Random) -> list[tuple[str, str]]:
    """The steps of a path to be judged: right, misread, or wrong in the working."""
    roll = rng.random()
    if roll < 0.4:
        return tell.steps(chart, kind, ask, rng)
    if roll < 0.6:
        return tell.steps(spoil(chart, rng), kind, ask, rng)
    if roll < 0.8:
        return tell.steps(chart, kind, ask, rng, taken=spoil(chart, rng))
    return slip(tell.steps(chart, kind, ask, rng), asking.answer(chart, kind, ask), rng)


def conversation(chart: Mapping[str, Any], mode: str, family: str, rng: random.Random) -> str:
    """One conversation about `chart` from after the picture.

    `mode` is "describe", "drill", "look" (a path as far as it only says what the picture shows), "perceive" ("direct"
    with questions of perception only) or a mode token's name.
    """
    if mode == "describe":
        return f"<direct>{DESCRIBE}<bot>{tell.describe(chart)}<eos>"
    if mode == "drill":
        asks = [world.make_ask(dict(chart), "perception" if rng.random() < 0.4 else "reasoning", rng) for _ in range(8)]
        return f"<direct>{DRILL}<bot>{tell.drill(chart, asks, rng)}<eos>"
    if mode == "look":
        return _begun(chart, rng.choice(("steps", "reason")), family, rng)[0]
    if mode == "perceive":
        mode, family = "direct", "perception"
    kind, ask = world.make_ask(dict(chart), family, rng)
    question, answer = asking.text(chart, kind, ask, rng), asking.answer(chart, kind, ask)
    if mode == "direct":
        return f"<direct>{question}<bot>{answer}<eos>"
    if mode == "judge":
        path = thoughts(judged(chart, kind, ask, rng)) if rng.random() < 0.9 else NO_REASONING
        return f"<judge>QUESTION: {question}\n\nREASONING:\n{path}<bot>{answer}<eos>"
    path_steps = tell.steps(chart, kind, ask, rng)
    if mode == "reason":
        return f"<reason>{question}<bot>{thoughts(path_steps)}<eos>"
    return steps_text(question, path_steps, answer)


def make_batch(tokenizer: Any, modes: Sequence[Sequence[str]], size: int, rng: random.Random) -> Batch:
    """A batch of `size` fresh training charts, each with conversations in the modes of one entry of `modes`."""
    pixels, texts = [], []
    for _ in range(size):
        chart = world.chart_of("train", rng)
        pixels.append(pixels_of(draw.draw(chart)))
        families = ["perception" if rng.random() < world.PERCEPTION_SHARE else "reasoning" for _ in range(8)]
        texts.append([conversation(chart, mode, families[i], rng) for i, mode in enumerate(rng.choice(modes))])
    flat = iter(tokenizer([text for row in texts for text in row], add_special_tokens=False)["input_ids"])
    rows: list[list[list[int]]] = []
    for row in texts:
        rows.append([])
        for tokens in [next(flat) for _ in row]:
            if sum(map(len, rows[-1])) + len(tokens) <= ROOM or not rows[-1]:
                rows[-1].append(tokens)
    return pack(tokenizer, np.stack(pixels), rows)


def make_texts(tokenizer: Any, modes: Sequence[str], size: int, rng: random.Random) -> Batch:
    """A batch of conversations without pictures (several times cheaper than with them).

    `modes` are of "drill", "steps" and "reason".

    What only the picture could tell, the description at the start, is given; what follows from it is to be learned.
    """
    given, rows = [], []
    for _ in range(size):
        chart, mode = world.chart_of("train", rng), rng.choice(modes)
        family = "perception" if rng.random() < world.PERCEPTION_SHARE else "reasoning"
        start, text = _begun(chart, mode, family, rng)
        given.append(len(tokenizer(start, add_special_tokens=False)["input_ids"]))
        rows.append([tokenizer(text, add_special_tokens=False)["input_ids"]])
    batch = pack(tokenizer, None, rows)
    for labels, count in zip(batch.labels, given, strict=True):
        labels[:count] = -100
    return batch


def _begun(chart: Mapping[str, Any], mode: str, family: str, rng: random.Random) -> tuple[str, str]:
    """A conversation as far as it says what the picture shows, and the whole."""
    if mode == "drill":
        asks = [world.make_ask(dict(chart), "perception" if rng.random() < 0.5 else "reasoning", rng) for _ in range(6)]
        start = f"<direct>{DRILL}<bot>{tell.describe(chart)}"
        return start, f"{start} {tell.drill(chart, asks, rng, described=False)}<eos>"
    text = conversation(chart, mode, family, rng)
    read = 1 + any(title in text for title in tell.MORE)
    mark, count = {"steps": ("<eos>", read), "reason": ("### ", read + 1)}[mode]
    return "".join(part + mark for part in text.split(mark)[:count]), text


def pack(tokenizer: Any, pixels: NDArray[np.float32] | None, rows: Sequence[Sequence[Sequence[int]]]) -> Batch:
    """Put each row's conversations (token ids, without the picture's) behind the picture's placeholders.

    Without pictures the positions are those that the texts would have behind one. A label weighs one over the root of
    its reply's length: alike, the one token of a direct answer would be lost among the hundred of a path.
    """
    room = 0 if pixels is None else IMAGE_TOKENS
    image, bot, eos = (tokenizer.convert_tokens_to_ids(token) for token in ("<image>", "<bot>", "<eos>"))
    count, length = len(rows), room + max(sum(map(len, row)) for row in rows)
    ids = np.full((count, length), tokenizer.pad_token_id, dtype=np.int64)
    ids[:, :room] = image
    part = np.full((count, length), -1, dtype=np.int64)
    part[:, :room] = 0
    positions = np.tile(np.arange(length), (count, 1))
    labels = np.full((count, length), -100, dtype=np.int64)
    for place, row in enumerate(rows):
        start = room
        for number, tokens in enumerate(row, 1):
            end = start + len(tokens)
            ids[place, start:end] = tokens
            said = np.array(tokens)
            opened = np.cumsum(said == bot) - (np.cumsum(said == eos) - (said == eos))
            labels[place, start:end] = np.where((opened > 0) & (said != bot), said, -100)
            part[place, start:end] = number
            positions[place, start:end] = IMAGE_TOKENS + np.arange(len(tokens))
            start = end
    shared = (part[:, :, None] == part[:, None, :]) | (part == 0)[:, None, :]
    mask = shared & np.tril(np.ones((length, length), dtype=bool))
    replies = np.cumsum(ids == bot, axis=1) + np.arange(count)[:, None] * (length + 1)
    lengths = np.bincount(replies[labels != -100], minlength=count * (length + 1))
    weights = (1 / np.sqrt(np.maximum(lengths[replies], 1))).astype(np.float32)
    return Batch(pixels, ids, positions, mask[:, None], labels, weights)
