r"""A model's reply -> one JSON object, or a coded refusal. Knows no prompt and no schema.

    try:
        reading = read_object(completion.text)      # Reading(value={...}, rung="fence", mended=False)
    except Unreadable as error:
        ...                                         # error.code, e.g. "cut": ask again, never guess

The rungs of the ladder, from the best to the last:

- "strict": the reply is one JSON object;
- "fence": it stands in one code fence;
- "prose": it is the only object in a text (the same object twice counts as one);
- "newlines": line breaks stand raw within its strings;
- "repair": json_repair mended quotes, commas or brackets' surroundings, without touching any other character.

What stands in `<think>...</think>` before the reply is no part of it.

A cut object, two different objects, a repeated key, a number that is not finite, a lone surrogate or a stray control
character are refused on every rung. LaTeX written with single backslashes (`\frac` in JSON is a form feed and "rac") is
read again with the backslashes doubled where only that can be meant, and refused where it cannot be told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from insightv.agents.replies.latex import UnclearEscape, mend_escapes
from insightv.agents.replies.reading import Reading, Rung, Unreadable
from insightv.agents.replies.thoughts import after_thoughts
from insightv.strict_json import Json, NotStrict, strict_decoder

MAX_BYTES = 262_144
MAX_DEPTH = 32
_MAX_DIGITS = 40  # of one integer: longer ones are runaway output, and costly to convert
_MAX_REPAIR = 65_536  # characters that json_repair is given: it is slow on long junk
_MAX_LOOSE_BRACES = 64  # opening braces in prose that never close: each costs a scan of the rest


def read_object(text: str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Reading:
    """The one JSON object of a reply.

    Raises:
        Unreadable: there is not exactly one whole object; nothing is ever guessed.
    """
    size = len(text) if len(text) > max_bytes else len(text.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        raise Unreadable("too_long", f"the reply has over {max_bytes} bytes")
    if _SURROGATE.search(text):
        raise Unreadable("bad_characters", "the reply has a lone surrogate, which is no character")
    body = text.strip("\ufeff \t\r\n")
    body = after_thoughts(body, ("{", "```"))
    if not body:
        raise Unreadable("empty", "the reply is empty")
    if (plain := _plain_object(body, max_depth)) is not None:
        return plain
    fenced = _within_fence(body)
    body = fenced or body
    if (body[:1], body[-1:]) in {("[", "]"), ('"', '"')}:
        raise Unreadable("not_object", f"the reply is a JSON {'list' if body[0] == '[' else 'string'}, not one object")
    groups = [group for group in _groups(body, max_depth) if _OBJECT.match(group)]
    alone: Rung = "fence" if fenced else "strict"
    return _only(groups, "prose" if groups and groups[0] != body else alone)


def _within_fence(body: str) -> str | None:
    """What stands in the one fence that a text consists of; found without going back, which long blanks make slow."""
    opened = _FENCE.match(body)
    if opened is None or not body.endswith("```") or body.count("```") != 2 or opened.end() > len(body) - 3:
        return None
    return body[opened.end() : -3].strip()


def _plain_object(body: str, max_depth: int) -> Reading | None:
    """A text that is one object and no more, as nearly all are; None where it needs a closer look."""
    if body[0] != "{" or body[-1] != "}" or "\\" in body or body.count("{") + body.count("[") > max_depth:
        return None
    return _parse(body, "strict")


def check_text(text: str) -> None:
    """Refuse characters that no answer has: lone surrogates, and control characters but tab and line ends.

    Raises:
        Unreadable: with the code bad_characters.
    """
    found = _NO_TEXT.search(text)
    if found:
        raise Unreadable("bad_characters", f"the text has the character U+{ord(found[0]):04X} at {found.start()}")


_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_EATEN = re.compile("[\t\r](?=[A-Za-z])")
_FENCE = re.compile(r"```[\w+-]*+[ \t]*+\r?\n")
_OBJECT = re.compile(r"""\{\s*(?:["'\u201c\u2018}]|\w+\s*:|$)""")
_QUOTED = re.compile(r"""\{\s*["'\u201c\u2018}]""")
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|["{}\[\]]', re.S)
_CLOSES = {"}": "{", "]": "["}


def _groups(body: str, max_depth: int) -> Iterator[str]:
    """The outermost balanced {...} of a text, in order; strings are skipped as a whole."""
    position = loose = 0
    while (start := body.find("{", position)) >= 0:
        end = _close(body, start, max_depth)
        if end is not None:
            yield body[start:end]
            position = end
            continue
        loose += 1
        if _OBJECT.match(body, start):
            raise Unreadable("cut", f"the object that begins at character {start} has no end")
        if loose > _MAX_LOOSE_BRACES:
            raise Unreadable("not_json", f"the reply has over {_MAX_LOOSE_BRACES} braces that are never closed")
        position = start + 1


def _close(body: str, start: int, max_depth: int) -> int | None:
    """Where the group that opens at `start` ends; None where it does not."""
    open_: list[str] = []
    for token in _TOKEN.finditer(body, start):
        mark = token[0]
        if mark in {"{", "["}:
            open_.append(mark)
            if len(open_) > max_depth:
                raise Unreadable("too_deep", f"the reply nests deeper than {max_depth} levels")
        elif mark == '"':
            return None
        elif mark in _CLOSES:
            if open_.pop() != _CLOSES[mark]:
                return None
            if not open_:
                return token.end()
    return None


def _only(groups: list[str], rung: Rung) -> Reading:
    """The one object that all groups are; the last rung is tried where none is JSON."""
    if len(groups) == 1 and (reading := _parse(groups[0], rung)) is not None:
        return reading
    found: dict[str, Reading] = {}
    broken: dict[str, None] = {}
    for group in dict.fromkeys(groups):
        reading = _parse(group, rung)
        if reading is None:
            broken[group] = None
        else:
            found[json.dumps(reading.value, sort_keys=True)] = reading
        if len(found) > 1:
            break
    quoted = [group for group in broken if _QUOTED.match(group)]
    suspects = quoted if found or quoted else list(broken)
    if len(found) + len(suspects) > 1:
        raise Unreadable("two_objects", "the reply has more than one object")
    if found:
        return next(iter(found.values()))
    if not suspects:
        raise Unreadable("not_json", "the reply has no JSON object")
    return _repair(suspects[0])


def _parse(group: str, rung: Rung) -> Reading | None:
    """The group as JSON, None where it is not."""
    source, mended = _mend(group)
    for decoder in _DECODERS:
        try:
            value = decoder.decode(source)
        except json.JSONDecodeError:
            continue
        except NotStrict as error:
            raise _not_strict(error) from None
        _check_strings(value)
        return Reading(value, rung if decoder.strict else "newlines", mended)
    return None


def _not_strict(error: NotStrict) -> Unreadable:
    if error.code == "bad_number":
        return Unreadable("bad_number", f"{error.found[:40]} is not a finite number of usual length")
    return Unreadable("duplicate_keys", f"the key {error.found[:40]!r} stands twice in one object")


def _mend(group: str) -> tuple[str, bool]:
    try:
        mended = mend_escapes(group)
    except UnclearEscape as error:
        raise Unreadable("bad_characters", str(error)) from error
    return mended, mended != group


_DECODERS = tuple(strict_decoder(control_characters=loose, most_digits=_MAX_DIGITS) for loose in (False, True))


def _check_strings(value: Json) -> None:
    """Refuse what must not be passed on in a string: half characters, control characters, eaten backslashes."""
    for text in _texts(value):
        check_text(text)
        if _EATEN.search(text):
            raise Unreadable("bad_characters", "a tab or carriage return stands directly before a letter")


_BARE_NUMBER = re.compile(r"[:\[,]\s*[-+]?(?:nan|inf|infinity)\b", re.I)
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.S)
_PUNCTUATION = re.compile(r"""[\s{}\[\]:,"'\u2018\u2019\u201c\u201d]+""")
_ANY_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.S)
_KEY = re.compile(r"\w(?:[\w -]*\w)?")
_QUOTATION = re.compile(r"""(?<![^\s(\[])"(?=\S)[^"\n]*(?<=\S)"(?=[\s.,;:!?)\]]|$)""")
_WORDS = {"True": "true", "False": "false", "None": "null"}


def _repair(group: str) -> Reading:
    """The group mended by json_repair, kept only where nothing but JSON's own punctuation has changed."""
    if len(group) > _MAX_REPAIR:
        raise Unreadable("too_long", f"an object that is not JSON and over {_MAX_REPAIR} characters long")
    if _BARE_NUMBER.search(_STRING.sub('""', group)):
        raise Unreadable("bad_number", "the object has a number that is not finite")
    from json_repair import repair_json

    source, mended = _mend(group)
    try:
        value = repair_json(source, return_objects=True, skip_json_loads=True, strict=True)
    except ValueError as error:
        raise Unreadable("not_json", f"the object is not JSON: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise Unreadable("not_json", "the object is not JSON and cannot be mended")
    last = list(value.values())[-1] if value else None
    if isinstance(last, str) and source.rstrip("}], \t\r\n")[-1:] not in {'"', "'", "\u201d", "\u2019"}:
        raise Unreadable("cut", "the last string of the object has no end")
    written = json.dumps(value, ensure_ascii=False, allow_nan=True)
    if _letters(written) != _letters(source):
        raise Unreadable("not_json", "the object is not JSON, and mending it would add or lose text")
    if not all(_KEY.fullmatch(key) for key in value) or '"' in _QUOTATION.sub("", "\n".join(_texts(value))):
        raise Unreadable("not_json", "the object is not JSON, and its quotes can be read in more than one way")
    _check_strings(value)
    return Reading(value, "repair", mended)


def _texts(value: Json) -> Iterator[str]:
    """All texts in a value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)


def _letters(source: str) -> str:
    """What a repair must leave as it is: all but JSON's punctuation, white space and the writing of escapes."""
    plain = re.sub(r"\b(?:True|False|None)\b", lambda match: _WORDS[match[0]], _ANY_ESCAPE.sub(_unescape, source))
    return _PUNCTUATION.sub("", plain)


def _unescape(match: re.Match[str]) -> str:
    if match[1]:
        return chr(int(match[1], 16))
    return "" if match[2] in "nrtbf" else match[2]
