"""HTML that is escaped by construction: an `Html` is markup, every other text becomes a text node.

el("td", el("bdi", model_text), klass="id")
"""

from __future__ import annotations

import html
import re

from insightv.strict_json import clean

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_VOID = {"meta", "br", "input"}


class Html(str):
    """Markup that was made here; the only kind of text that is not escaped."""

    __slots__ = ()


def shown(text: object) -> str:
    """The text without characters that HTML cannot hold; each becomes U+FFFD."""
    return _CONTROL.sub("\ufffd", clean(str(text)))


def clipped(text: str, most: int) -> str:
    """The text, or its beginning and how many characters follow."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def esc(value: object) -> Html:
    """Markup as it is, anything else as the text that it stands for."""
    return value if isinstance(value, Html) else Html(html.escape(shown(value)))


def el(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. Attributes lose underscores at their ends and have hyphens for the others; None leaves one out."""
    given = "".join(
        f' {"class" if key == "klass" else key.strip("_").replace("_", "-")}="{html.escape(shown(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(esc(child) for child in children if child is not None)
    return Html(f"<{name}{given}>" if name in _VOID else f"<{name}{given}>{inner}</{name}>")


def join(parts: list[Html]) -> Html:
    """Markup after markup."""
    return Html("".join(parts))


def text(value: object, most: int = 2000) -> Html:
    """A text from outside: clipped, and kept from turning the direction of what stands around it."""
    return el("bdi", clipped(shown(value), most))


def table(head: list[str], rows: list[list[object]], *, numbers: int = 0, caption: str | None = None) -> Html:
    """A table that scrolls on a narrow screen; the last `numbers` columns are set flush right."""
    first = len(head) - numbers

    def cells(name: str, row: list[object]) -> Html:
        return el("tr", *(el(name, cell, klass="n" if at >= first else None) for at, cell in enumerate(row)))

    inner = el(
        "table",
        el("caption", caption) if caption else None,
        el("thead", cells("th", list(head))),
        el("tbody", *(cells("td", row) for row in rows)),
    )
    return el("div", inner, klass="scroll", tabindex=0, role="region", aria_label=caption or head[0] or "table")


def facts(pairs: list[tuple[str, object]]) -> Html:
    """Names and values side by side."""
    return el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in pairs), klass="facts")
