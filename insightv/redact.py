"""Takes out of texts meant for people what must not be there: keys, userinfo, image data, addresses, control codes."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "[secret]"
_SHORTEST_SECRET = 4
"""Shorter ones would blank half of every text; no real key is that short."""
_SECRET_NAME = re.compile(r"(?i)(?:^|_)(?:key|token|secret|password|passwd|pwd|credentials?)(?:$|_)|api_?key")

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LINE_ENDS = {"\n": "\\n", "\x0b": "\\x0b", "\x0c": "\\x0c", "\r": "\\r", "\x85": "\\x85"}
_HIDDEN_ENDS = {"\u2028": "\\u2028", "\u2029": "\\u2029"}
"""Ends of a line that neither JSON nor `_CONTROLS` takes for one."""
_AS_WRITTEN, _HIDDEN_AS_WRITTEN = str.maketrans(_LINE_ENDS | _HIDDEN_ENDS), str.maketrans(_HIDDEN_ENDS)
_RULES = (
    (re.compile(r"(?i)\b((?:proxy-)?authorization|api-key|x-api-key)(\W{1,4})(?:(?:bearer|basic)\s{1,4})?[^\s\"',;]+"),
     rf"\1\2{MASK}"),
    (re.compile(r"(?i)\b(bearer|basic)\s{1,4}[A-Za-z0-9._~+/=*-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"\b(?:sk|pk|hf|gsk|xai)[-_][A-Za-z0-9_*.-]{6,}"), MASK),
    (re.compile(r"(?<=://)[^/\s@\"']+@"), f"{MASK}@"),
    (re.compile(r"data:[\w.+/-]{1,60};base64,[A-Za-z0-9+/=_-]*"), "[data url]"),
    (re.compile(r"[A-Za-z0-9+/_-]{120,}={0,2}"), "[base64]"),
    (re.compile(r"(?i)(?: at)? 0x[0-9a-f]{6,}"), ""),
    (_CONTROLS, ""),
)  # fmt: skip


def without_controls(text: str) -> str:
    """`text` without what a terminal would obey: escape sequences and control codes, but tab and line feed."""
    return _CONTROLS.sub("", text).translate(_HIDDEN_AS_WRITTEN)


def one_line(text: str) -> str:
    """`text` without control codes, its ends of lines written out: somebody else's text forges no line of ours."""
    return _CONTROLS.sub("", text.translate(_AS_WRITTEN))


class Redactor:
    """Knows the secrets of one backend, in all the forms in which a server or a library may print them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if len(secret) >= _SHORTEST_SECRET for form in _forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)

    def clean(self, text: str, limit: int = 300, *, lines: bool = False) -> str:
        """`text` without secrets, on at most `limit` bytes of UTF-8, and in one line unless its `lines` are kept."""
        for form in self._forms:
            text = text.replace(form, MASK)
        # Rules look at a little more than is kept, so that nothing is recognised too late because it was cut.
        text = text[: 4 * limit]
        text = text.translate(_HIDDEN_AS_WRITTEN if lines else _AS_WRITTEN)
        for pattern, substitute in _RULES:
            text = pattern.sub(substitute, text)
        return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")

    def clean_bytes(self, body: bytes, limit: int, *, lines: bool = True) -> str:
        """The start of a reply as text, without secrets, on at most `limit` bytes of UTF-8; its `lines` are kept."""
        for form in self._forms:
            body = body.replace(form.encode(), MASK.encode())
        return self.clean(body[: 4 * limit].decode("utf-8", "replace"), limit, lines=lines)


def _forms(secret: str) -> set[str]:
    encoded = base64.b64encode(secret.encode()).decode()
    return {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], encoded, encoded.rstrip("=")}


def environment_secrets() -> list[str]:
    """The values of environment variables that are named like keys, tokens and passwords; 8 characters and more.

    The place of a file or folder is none: `PWD` is the working directory, and some variables name a file with a key.
    """
    named = (value for name, value in os.environ.items() if len(value) >= 8 and _SECRET_NAME.search(name))
    return [value for value in named if not (os.path.isabs(value) and os.path.exists(value))]
