"""Texts that hold a control token of the model's (`<image>`, an end of turn) as plain text, before they are trained on.

A question may well say "<image>", or a step quote an end of turn. The trainer's chat template would make real tokens of
them: a place without a picture, a reply that ends in its middle. So they are broken up as in prompts
(`agents.fencing`), but by the tokens of this model. When it is asked, `backends.hf.prompt` keeps such text plain by the
tokenizer; TRL has no way to.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from insightv.agents.fencing import broken

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin

_TEXTS = ("prompt", "completion", "chosen", "rejected")


def control_tokens(processor: ProcessorMixin) -> list[str]:
    """The tokens that stand for something else than their letters: those of pictures, and those of the chat template.

    Other special tokens are left alone: a user may have added tags of the reply to the tokenizer.
    """
    asked: Any = processor
    tokenizer = asked.tokenizer
    template = str(getattr(asked, "chat_template", None) or getattr(tokenizer, "chat_template", None) or "")
    own = {getattr(asked, name, None) for name in ("image_token", "video_token")}
    own |= {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted({str(token) for token in own if token} | {token for token in special if token in template})


def without_control_tokens(data: Dataset, processor: ProcessorMixin) -> Dataset:
    """The rows, in TRL's form, with control tokens in their texts broken up; the same object where there are none."""
    from datasets import Image, List

    found = re.compile("|".join(map(re.escape, control_tokens(processor))) or "(?!)")
    columns = [name for name in _TEXTS if name in data.column_names]

    def texts(row: dict[str, Any]) -> list[str]:
        return [block["text"] or "" for name in columns for turn in row[name] for block in turn["content"]]

    if not any(found.search(text) for row in data.select_columns(columns) for text in texts(row)):
        return data

    def broken_row(row: dict[str, Any]) -> dict[str, Any]:
        return {name: [_broken_turn(found, turn) for turn in row[name]] for name in columns}

    features = data.features
    return data.cast_column("images", List(Image(decode=False))).map(broken_row).cast(features)


def _broken_turn(found: re.Pattern[str], turn: dict[str, Any]) -> dict[str, Any]:
    content = [block | {"text": block["text"] and broken(found, block["text"])} for block in turn["content"]]
    return turn | {"content": content}
