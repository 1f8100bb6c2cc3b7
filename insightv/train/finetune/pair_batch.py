"""Batches of preference pairs in which the two replies share the prompt, its pictures and their common beginning.

TRL's collator writes each pair as two sequences, and its pictures twice. Here a pair is one sequence, a tree:

    prompt and what both replies begin with | rest of the chosen reply | rest of the rejected reply | padding

`packed` holds it, and of its places those whose hidden states tell the next token of either reply. All other keys are
those of TRL's batch (chosen replies first, then rejected ones), cut down to the replies. Knows no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from trl.data_utils import apply_chat_template, prepare_multimodal_messages

SHARED, CHOSEN, REJECTED, PADDING = 0, 1, 2, -1
"""Parts of a packed sequence, by token."""


@dataclass
class PairCollator:
    """Makes a batch of rows in TRL's form: `prompt`, `chosen` and `rejected` as messages, `images` as a list.

    A batch of n pairs has `packed` (see `pack`), the pictures' tensors as the processor makes them (each once), `pair`
    (n), a number of each pair by its content, and as TRL's loss wants them, 2 n rows: `input_ids` and
    `completion_mask` of the last token of the prompt and the reply, and `attention_mask` of the whole sequences.
    """

    processor: Any

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The batch of some rows."""
        texts = [self._texts(row) for row in rows]
        images = [list(row["images"]) for row in rows]
        made = self.processor(
            images=images if any(images) else None,
            text=[text["prompt"] for text in texts],
            padding=True,
            padding_side="left",
            return_tensors="pt",
            add_special_tokens=False,  # the chat template has written them
        )
        real = made.pop("attention_mask").bool()
        ids, kinds = made.pop("input_ids"), made.pop("mm_token_type_ids", None)
        prompts = [one[mask] for one, mask in zip(ids, real, strict=True)]
        replies = self._ids([text[name] for name in ("chosen", "rejected") for text in texts])
        packed = pack(prompts, replies[: len(rows)], replies[len(rows) :], self.processor.tokenizer.pad_token_id)
        if kinds is not None:
            packed["mm_token_type_ids"] = padded(
                [one[mask] for one, mask in zip(kinds, real, strict=True)], 0, packed["input_ids"].shape[1]
            )
        pair = torch.tensor([_number(text, shown) for text, shown in zip(texts, images, strict=True)])
        return {**made, **self._seen_by_trl(prompts, replies), "packed": packed, "pair": pair}

    def _texts(self, row: Mapping[str, Any]) -> dict[str, str]:
        example = dict(row) | {name: prepare_multimodal_messages(row[name]) for name in ("chosen", "rejected")}
        example["prompt"] = prepare_multimodal_messages(row["prompt"], images=list(row["images"]))
        texts: dict[str, str] = apply_chat_template(example, self.processor)
        return texts

    def _ids(self, texts: list[str]) -> list[Tensor]:
        lists = self.processor(text=texts, add_special_tokens=False)["input_ids"]
        return [torch.tensor(one) for one in lists]

    def _seen_by_trl(self, prompts: list[Tensor], replies: list[Tensor]) -> dict[str, Tensor]:
        twice, pad = prompts * 2, self.processor.tokenizer.pad_token_id
        whole = [torch.ones(len(p) + len(r), dtype=torch.long) for p, r in zip(twice, replies, strict=True)]
        asked = [torch.cat([p.new_zeros(1), torch.ones_like(r)]) for p, r in zip(twice, replies, strict=True)]
        return {
            "input_ids": padded([torch.cat([p[-1:], r]) for p, r in zip(twice, replies, strict=True)], pad),
            "completion_mask": padded(asked, 0),
            "attention_mask": padded(whole, 0),
        }


def pack(
    prompts: Sequence[Tensor], chosen: Sequence[Tensor], rejected: Sequence[Tensor], pad: int
) -> dict[str, Tensor]:
    """Pairs as one sequence each, of token ids without padding.

    Returns `input_ids` and `part` (pairs, length), and `places` (2 pairs, 1 + longest reply): of the last token of the
    prompt and every token of the chosen, then of the rejected replies, where it stands in its pair's sequence.
    """
    ids, parts = [], []
    places: dict[int, list[Tensor]] = {CHOSEN: [], REJECTED: []}
    for prompt, better, worse in zip(prompts, chosen, rejected, strict=True):
        same = sum(
            1 for _ in takewhile(lambda two: two[0] == two[1], zip(better.tolist(), worse.tolist(), strict=False))
        )
        ids.append(torch.cat([prompt, better, worse[same:]]))
        trunk, ends = len(prompt) + same, (len(better) - same, len(worse) - same)
        lengths = torch.tensor([trunk, *ends])
        parts.append(torch.tensor([SHARED, CHOSEN, REJECTED]).repeat_interleave(lengths))
        shared = torch.arange(len(prompt) - 1, trunk)
        places[CHOSEN].append(torch.cat([shared, torch.arange(ends[0]) + trunk]))
        places[REJECTED].append(torch.cat([shared, torch.arange(ends[1]) + trunk + ends[0]]))
    return {
        "input_ids": padded(ids, pad),
        "part": padded(parts, PADDING),
        "places": padded(places[CHOSEN] + places[REJECTED], 0),
    }


def padded(rows: Sequence[Tensor], value: int, length: int | None = None) -> Tensor:
    """Rows of whole numbers as one tensor, padded on the right (to `length`)."""
    length = length or max(map(len, rows))
    return torch.stack([torch.nn.functional.pad(row, (0, length - len(row)), value=value) for row in rows])


def _number(texts: Mapping[str, str], images: Sequence[Any]) -> int:
    """A number of 63 bits that tells a pair from all others: texts and pixels."""
    digest = hashlib.blake2b(digest_size=8)
    for name in ("prompt", "chosen", "rejected"):
        digest.update(f"{len(texts[name])} {texts[name]}".encode())
    for image in images:
        digest.update(f"{image.mode} {image.size}".encode())
        digest.update(image.tobytes())
    return int.from_bytes(digest.digest()) >> 1
