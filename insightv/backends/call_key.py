"""The identity of a model call, and the record that an exported journal keeps of it.

The journal and the `replay` backend both take their keys from here, so a call recorded by one is found by the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import ClassVar

import orjson
from pydantic import BaseModel, ConfigDict, Field

from insightv.records import Completion, Message, Sampling, Schema

KEY_VERSION = 1
"""Counts up when the same call gets another key; keys of different versions never meet."""


def call_key(model: str, messages: Sequence[Message], sampling: Sampling, *, schema: Schema | None, n: int) -> str:
    """SHA-256, in hex, of all that decides a call's replies: model, messages, sampling with its seed, schema, n.

    `model` is the ChatModel's name. A schema counts with the order of its properties, since constrained decoding
    writes them in that order; the order of `sampling.extra` does not count.
    """
    head = [
        KEY_VERSION,
        model,
        n,
        [sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed],
        sorted(sampling.extra.items()) if sampling.extra else [],
        [schema.name, schema.definition] if schema else None,
    ]
    hasher = hashlib.sha256(_json(head))
    # JSON holds no raw NUL, so head and digests cannot run into each other.
    hasher.update(b"\0" + b"".join([message.digest for message in messages]))
    return hasher.hexdigest()


def _json(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # lone surrogates, integers beyond 64 bits
        return json.dumps(value, ensure_ascii=True).encode()


class RecordedCall(BaseModel):
    """One line of an exported journal: the key, the model's name, and the replies; other keys of a line are ignored."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")

    key: str = Field(pattern="^[0-9a-f]{64}$")
    model: str
    completions: tuple[Completion, ...] = Field(min_length=1)
