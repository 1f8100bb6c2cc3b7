"""Untrusted text inside a prompt: it cannot leave its place, and what a reply copies from it is recognised.

Every line of quoted text begins with "| ", so that no line of it can be a delimiter, and the delimiters carry a nonce
that occurs nowhere in the text. The nonce is a function of the content: a resumed run sends the very same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

_CONTROL_TOKENS = re.compile(
    r"<(?=\||/?(?:s|image|img|video|audio|bos|eos|pad|unk|mask|thoughts|think|start_of_turn|end_of_turn|start_of_image)>)"
    r"|\[(?=/?INST\])|<(?=<SYS>>|</SYS>>)",
    re.IGNORECASE,
)
_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
_PLACE = re.compile(r"\{\{([a-z_]+)\}\}")


def quote(text: str) -> str:
    """The text with "| " before each line (any line break of Unicode counts), chat control tokens broken up.

    A tokenizer may read "<|im_end|>" or "<image>" in a text as its own control token; a space after the bracket keeps
    it readable as text.
    """
    text = _CONTROL_TOKENS.sub(lambda m: m.group() + " ", text)
    return "\n".join(f"| {_UNPRINTABLE.sub(chr(0xFFFD), line)}" for line in text.splitlines() or [""])


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
