"""The error that a server tells, in whichever of the usual forms, as one record. It knows no meaning of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from insightv.backends.openai.retry_after import retry_after_s, wait_in_text

MOST_PARTS = 2**18
"""Objects and lists of one reply. 8 MiB of small ones take 190 MB to hold; the probabilities of some thousand tokens
with twenty others each are about 2e5."""
_LOC = re.compile(r"""['"]loc['"]:\s*[(\[]([^)\]]*)[)\]]""")
"""The place of a fault in a validation error that was written into a text (llama-cpp-python does)."""


@dataclass(frozen=True, slots=True)
class ServerError:
    """`status` is HTTP's, or where that is 200 the one in the body (0: none there); `message` is the server's text.

    `codes` are its words for the kind of error, `fields` the places in the request that it names apart from the
    message, and `wait_s` for how long it asks to be left alone, if its body says so.
    """

    status: int
    message: str = ""
    codes: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    wait_s: float | None = None

    @property
    def words(self) -> str:
        """Codes and message as one text."""
        return " ".join((*self.codes, self.message))


def read_json(body: bytes) -> object:
    """What a body holds.

    Raises:
        ValueError: more than `MOST_PARTS` objects and lists, by their opening brackets, also those in texts;
            orjson.JSONDecodeError where it is not JSON.
    """
    if body.count(b"{") + body.count(b"[") > MOST_PARTS:
        raise ValueError(f"holds more than {MOST_PARTS} objects and lists")
    return orjson.loads(body)


def error_in(body: bytes, status: int) -> ServerError:
    """The error of a reply; without a message where the body tells none."""
    try:
        form = read_json(body)
    except ValueError:
        return ServerError(status)
    return error_of(form, status)


def error_of(form: object, status: int) -> ServerError:
    """The error of a parsed body.

    `{"error": {...}}`, a list of that (Google), `{"error": "text", "code": ...}`, `{"detail": ...}` (FastAPI), or the
    bare object of older servers.
    """
    if isinstance(form, list) and form:
        form = form[0]
    if not isinstance(form, dict):
        return ServerError(status)
    inner = form.get("error") or form
    error: Mapping[str, Any] = inner if isinstance(inner, dict) else {**form, "message": inner}
    detail = error.get("detail")
    faults = [fault for fault in detail if isinstance(fault, dict)] if isinstance(detail, list) else []
    said = [error.get("message"), detail, *(fault.get("msg") for fault in faults)]
    metadata = error.get("metadata")
    if isinstance(metadata, dict):
        said += [metadata.get("raw"), *(reasons if isinstance(reasons := metadata.get("reasons"), list) else [])]
    message = "; ".join(text for text in said if isinstance(text, str) and text)
    kinds = [error.get("code"), error.get("type"), error.get("status"), error.get("reason")]
    kinds += [fault.get("type") for fault in faults] + list(_reasons(error))
    return ServerError(
        _status(error) if status == 200 else status,
        message,
        tuple(dict.fromkeys(kind for kind in kinds if isinstance(kind, str))),
        tuple(_fields(error, faults, message)),
        _wait_s(error, message),
    )


def _status(error: Mapping[str, Any]) -> int:
    for value in (error.get("code"), error.get("status")):
        number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) == 3 else value
        if isinstance(number, int) and 400 <= number < 600:
            return number
    return 0


def _reasons(error: Mapping[str, Any]) -> Iterator[object]:
    """Codes that stand deeper: Azure's `innererror`, the `details` of Google."""
    inner, details = error.get("innererror"), error.get("details")
    if isinstance(inner, dict):
        yield inner.get("code")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            yield detail.get("reason")


def _fields(error: Mapping[str, Any], faults: list[dict[str, Any]], message: str) -> Iterator[str]:
    """What `param`, `loc` and `field` name; of a place within a field the field."""
    param = error.get("param")
    if isinstance(param, str) and param:
        yield re.split(r"[.\[]", param.removeprefix("body."))[0]
    places = [fault.get("loc") for fault in faults]
    places += [re.findall(r"[\w-]+", found) for found in _LOC.findall(message)]
    for place in places:
        names = [name for name in place if isinstance(name, str) and name != "body"] if isinstance(place, list) else []
        if names:
            yield names[0]


def _wait_s(error: Mapping[str, Any], message: str) -> float | None:
    details, metadata = error.get("details"), error.get("metadata")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and isinstance(detail.get("retryDelay"), str):
            return wait_in_text(f"retry in {detail['retryDelay']}")
    headers = metadata.get("headers") if isinstance(metadata, dict) else None
    if isinstance(headers, dict):
        found = retry_after_s(_Headers(headers))
        if found is not None:
            return found
    return wait_in_text(message)


class _Headers(dict[str, str]):
    """Headers that a router passes on within a body, by names in lower case."""

    def __init__(self, headers: Mapping[Any, Any]) -> None:
        super().__init__({str(name).lower(): str(value) for name, value in headers.items()})

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)
