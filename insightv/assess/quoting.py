"""Prompts of judges: templates, the nonce of their delimiters, and how a reply that copies them is recognised.

The texts that are judged are quoted by `insightv.agents.fencing`, so that no line of them can be a delimiter; the
delimiters carry a nonce besides that occurs nowhere in the texts. The nonce is a function of the content: a resumed run
sends the very same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

_PLACE = re.compile(r"\{\{([a-z_]+)\}\}")


def nonce_of(texts: Iterable[str], *parts: int | str) -> str:
    """Twelve hex digits that occur in none of the texts, derived from the texts and the parts alone."""
    together = "\x00".join(texts)
    seed = json.dumps([together, *parts], ensure_ascii=True).encode()
    for attempt in range(1000):
        nonce = hashlib.sha256(b"%d:" % attempt + seed).hexdigest()[:12]
        if nonce not in together.casefold():
            return nonce
    raise ValueError("no nonce is absent from the text: it holds all twelve-digit numbers tried")


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with each {{name}} replaced, in one pass: braces in a value are not looked at.

    Raises:
        ValueError: the template names something that is not there.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in values:
            raise ValueError(f"the prompt asks for {{{{{name}}}}}; it can have {', '.join(sorted(values))}")
        return values[name]

    return _PLACE.sub(value, template)


def copied(reply: str, value: Mapping[str, object], sent: Iterable[str]) -> bool:
    """Whether a reply, read as `value`, is a copy of an object that stands in a text that was sent.

    By its characters (white space and quoting bars apart), or by what the object in the text reads as.
    """
    core = _squeezed(reply[reply.find("{") : reply.rfind("}") + 1])
    sent = [text for text in sent if "{" in text]
    return any(core in _squeezed(text) or any(found == value for found in _objects(text)) for text in sent)


@lru_cache(maxsize=64)  # the same prompts are before every reply of a judge
def _squeezed(text: str) -> str:
    return re.sub(r"[\s|]+", "", text)


@lru_cache(maxsize=64)
def _objects(text: str) -> tuple[dict[str, object], ...]:
    return tuple(objects_in(text))


def objects_in(text: str) -> Iterator[dict[str, object]]:
    """Every JSON object that stands in the text, quoted with "| " or not."""
    decoder = json.JSONDecoder()
    for version in {text, re.sub(r"(?m)^\| ?", "", text)}:
        for brace in re.finditer(r"\{\s*\"", version):
            try:
                value, _ = decoder.raw_decode(version, brace.start())
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                yield value
