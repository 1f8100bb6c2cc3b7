"""Requests of the chat completions format, spliced from bytes. It knows no HTTP and no replies.

The messages come first in the body and a reply of the model goes back as the exact text that came, so each call of a
chain begins with the bytes of the one before it. A message is encoded once and its bytes are kept as long as the
message is; the data URL of a picture is one piece of bytes that all messages with that picture share.
"""

from __future__ import annotations

import base64
import weakref
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import orjson

from insightv.backends.openai.fit import Fit
from insightv.errors import ModelError
from insightv.records import Message, Picture, Sampling, Schema

Source = TypeVar("Source")
Made = TypeVar("Made")


class KeptWith(Generic[Source, Made]):
    """Values that are made once from an object, by identity, and kept as long as the object lives."""

    def __init__(self, make: Callable[[Source], Made]) -> None:
        self._make = make
        self._kept: dict[int, tuple[weakref.ref[Source], Made]] = {}

    def of(self, source: Source) -> Made:
        """The value made from `source`."""
        entry = self._kept.get(id(source))
        if entry is not None and entry[0]() is source:
            return entry[1]
        made, kept, key = self._make(source), self._kept, id(source)
        kept[key] = (weakref.ref(source, lambda _: kept.pop(key, None)), made)
        return made

    def __len__(self) -> int:
        return len(self._kept)


def _picture_part(picture: Picture) -> bytes:
    url = b"data:" + picture.mime.encode() + b";base64," + base64.b64encode(picture.data)
    return b'{"type":"image_url","image_url":{"url":"' + url + b'"}}'


def _message_pieces(message: Message, role: str = "") -> tuple[bytes, ...]:
    opening = b'{"role":"' + (role or message.role).encode() + b'","content":'
    texts = [part for part in message.parts if isinstance(part, str)]
    if len(texts) == len(message.parts):  # some servers take a list only where there are pictures
        return (opening + orjson.dumps("\n".join(texts)) + b"}",)
    pieces: list[bytes] = [opening + b"["]
    for number, part in enumerate(message.parts):
        if number:
            pieces.append(b",")
        if isinstance(part, Picture):
            pieces.append(PICTURES.of(part))
        else:
            pieces.append(b'{"type":"text","text":' + orjson.dumps(part) + b"}")
    pieces.append(b"]}")
    return tuple(pieces)


def _response_form(schema: Schema) -> orjson.Fragment:
    form = {"name": schema.name, "schema": schema.definition, "strict": True}
    return orjson.Fragment(orjson.dumps({"type": "json_schema", "json_schema": form}))


PICTURES: KeptWith[Picture, bytes] = KeptWith(_picture_part)
MESSAGES: KeptWith[Message, tuple[bytes, ...]] = KeptWith(_message_pieces)
_FORMS: KeptWith[Schema, orjson.Fragment] = KeptWith(_response_form)


def request_body(
    model: str,
    messages: Sequence[Message],
    sampling: Sampling,
    *,
    n: int = 1,
    schema: Schema | None = None,
    fit: Fit = Fit(),  # noqa: B008  # frozen
    stream: bool = False,
) -> list[bytes]:
    """The body of a request in pieces.

    Raises:
        ModelError: code "bad_request": a text or an extra field cannot be written as JSON, or a field is reserved.
    """
    pieces = [b'{"messages":[']
    try:
        for number, message in enumerate(fit.messages(messages)):
            if number:
                pieces.append(b",")
            renamed = message.role == "system" and fit.system != "system"
            pieces.extend(_message_pieces(message, fit.system) if renamed else MESSAGES.of(message))
        fields = sent_fields(model, sampling, n, schema, fit, stream)
        pieces.append(b"]," + orjson.dumps(fit.fields(fields) | _extra(sampling, fit))[1:])
    except TypeError as error:  # orjson: lone surrogates, values that JSON does not have
        raise ModelError("bad_request", f"a message or an extra field cannot be written as JSON: {error}") from None
    return pieces


def _extra(sampling: Sampling, fit: Fit) -> dict[str, object]:
    return {name: value for name, value in sampling.extra.items() if name not in fit.omit}


def sent_fields(
    model: str, sampling: Sampling, n: int, schema: Schema | None, fit: Fit, stream: bool = False
) -> dict[str, object]:
    """The fields beside the messages by our names, `fit` not yet applied, but for how a schema is asked for."""
    fields: dict[str, object] = {"model": model} | sampling.model_dump(exclude={"extra"})
    if n > 1:
        fields["n"] = n
    if schema is not None and fit.structured == "schema":
        fields["response_format"] = _FORMS.of(schema)
    elif schema is not None and fit.structured == "json":
        fields["response_format"] = {"type": "json_object"}
    if stream:
        fields["stream"] = True
        fields["stream_options"] = {"include_usage": True}
    return fields
