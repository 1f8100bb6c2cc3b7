"""Questions in JSONL: one object a line.

Knows JSON, and what a file is that is one JSON document. Reads lines, and names faults of bytes, by
`insightv.inputs.sources`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from insightv.inputs.fields import kind_name
from insightv.inputs.sources import KEPT_TEXT, MAX_LINE, Fault, Line, RawRow, SourceFault, TextFile, cut_text
from insightv.strict_json import NotStrict, strict_decoder


class JsonLines(TextFile):
    """One JSON object a line."""

    def rows(self) -> Iterator[RawRow]:
        """See `RowSource`."""
        first = True
        for line in self.lines():
            text = _json_text(line)
            del line  # of a long line no more is held than its text and its values
            if text.fault is None and text.whole.isspace() and text.whole.isascii():
                continue
            row = _json_row(text)
            del text
            if first and _BEGINS_LIKE_A_DOCUMENT.match(row.text) and _is_document(self.lines()):
                raise SourceFault(row.line, "json_document", "one JSON document; write one object a line (JSONL)")
            first = False
            yield row
            del row


_BEGINS_LIKE_A_DOCUMENT = re.compile(r"\s*(?:\[|\{\s*\Z)")
_LOOKED_AT = 64


def _is_document(lines: Iterator[Line]) -> bool:
    """Whether lines are one JSON document, not rows of which the first is broken; told by the first lines.

    Where one of them is an object of its own, they are a document only if all up to the line after it begins one.
    """
    head: list[str] = []
    found = False
    for text in map(_json_text, itertools.islice(lines, _LOOKED_AT)):
        if not text.whole.strip():
            continue
        ends = found or sum(map(len, head)) > MAX_LINE
        found = found or (bool(head) and _json_row(text).values is not None)
        head.append(text.whole)
        if ends:
            break
    return not found or _begins_a_document("".join(head).strip())


def _begins_a_document(text: str) -> bool:
    """Whether a text is a JSON document of several lines, or the beginning of one."""
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) - 1 or error.msg.startswith("Unterminated")
    except (RecursionError, ValueError):
        return False
    return "\n" in text[:end]


@dataclass(slots=True)
class _JsonText:
    """A line of JSON; `start` is how it begins in the file, `exact` that `whole` has the same characters."""

    number: int
    start: str
    whole: str
    exact: bool
    ended: bool
    fault: Fault | None


_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")


def _json_text(line: Line) -> _JsonText:
    """The text of a line. In a long one what is beyond ASCII is escaped, as JSON can.

    As it is, one such character would make each character of the line take two or four bytes.
    """
    if line.data is not None and len(line.data) > 2**20 and not line.data.isascii():
        start = cut_text(line.data[: 4 * KEPT_TEXT].decode("utf-8", "replace"))
        try:
            whole = _BEYOND_ASCII.sub(lambda found: json.dumps(found[0].decode())[1:-1].encode(), line.data)
        except UnicodeDecodeError:
            return _JsonText(line.number, start, "", False, line.ended, line.decoded()[1])
        if b"\0" not in whole:
            return _JsonText(line.number, start, whole.decode("ascii"), False, line.ended, None)
    text, fault = line.decoded()
    return _JsonText(line.number, cut_text(text), text, True, line.ended, fault)


def _json_row(text: _JsonText) -> RawRow:
    fault = text.fault
    values: object = None
    if fault is None:
        try:
            values = _DECODER.decode(text.whole)
        except RecursionError:
            fault = Fault("", "too_deep", "brackets are nested too deeply")
        except json.JSONDecodeError as error:
            place = f" at character {error.pos + 1}" if text.exact else ""
            fault = Fault("", "bad_json", f"not JSON{place}: {error.msg.removesuffix(' at')}")
        except NotStrict as error:
            fault = _not_strict(error)
        except ValueError:
            fault = Fault("", "bad_json", "a number of too many digits")
        if fault is None and not isinstance(values, dict):
            fault = Fault("", "not_an_object", f"a row is a JSON object, not {kind_name(values)}")
    if fault is not None and fault.code in ("bad_json", "invalid_utf8") and not text.ended:
        fault = Fault("", "cut_line", f"the last line is cut off: no newline at its end, and {fault.reason}")
    row = values if isinstance(values, dict) and fault is None else None
    return RawRow(text.number, text.start.rstrip("\r\n"), row, fault)


def _not_strict(error: NotStrict) -> Fault:
    if error.code == "duplicate_key":
        key = cut_text(error.found, 100)
        return Fault(key, "duplicate_key", f"the key {key!r} is there twice")
    return Fault("", "not_finite", f"{cut_text(error.found, 40)} is no finite number of JSON")


_DECODER = strict_decoder()
