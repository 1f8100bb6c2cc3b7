"""Reads a path's text while it is being written: the same steps as `transcript.from_text`, piece by piece.

What may still turn out to be a tag, a title line or the white space at a step's end is held back until that is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from insightv.agents.replies.transcript import TAGS, Tags, check_tags, read_title
from insightv.events import StepEvent, StepStarted, StepText
from insightv.records import Step

_HEAD = re.compile(r"(\\*)### ")
_HEAD_TO_BE = re.compile(r"\\*#{0,3}")


class StepReader:
    """Fed with pieces of text. `steps` are those that are certainly whole, `started` counts those that have begun."""

    def __init__(self, tags: Tags = TAGS) -> None:
        self.steps: list[Step] = []
        self.started = 0
        self._tags = check_tags(tags)
        self._tag = _tag_or_part(self._tags)
        self._held = ""  # not yet looked at: what may be part of a tag
        self._line = ""  # the beginning of a line that may be a title, or a title line that has not ended
        self._space = ""
        self._content: list[str] = []
        self._title = ""
        self._place = "before"  # before the block, at the start of a line, within one, or after the block

    def feed(self, piece: str) -> list[StepEvent]:
        """What a further piece of the text adds."""
        self._held += piece
        if self._place == "after" or (self._place == "before" and not self._opened()):
            return []
        text, closed = self._untagged()
        events = self._read(text)
        if closed:
            events += self._end_of_line()
            self._end_step()
            self._place = "after"
        return events

    def _opened(self) -> bool:
        before, opening, block = self._held.partition(self._tags[0])
        if not opening:
            self._held = before[-len(self._tags[0]) :]
            return False
        self._held, self._place = block, "first"
        return True

    def _untagged(self) -> tuple[str, bool]:
        """What is held up to what may become a tag, escapes undone, and whether the block ends there."""
        held, pieces, start, place = self._held, list[str](), 0, 0
        while found := self._tag.search(held, place):
            at, end = found.span()
            closed = found[0] == self._tags[1]
            if closed or found["part"] is not None:
                self._held = "" if closed else held[at:]
                return "".join([*pieces, held[start:at]]), closed
            if "\\" in found[0]:
                pieces.append(held[start : at + 1])
                start, place = at + 2, end
            else:
                place = at + 1
        self._held = ""
        return "".join([*pieces, held[start:]]), False

    def _read(self, text: str) -> list[StepEvent]:
        events: list[StepEvent] = []
        if self._place == "first" and text:
            text, self._place = text.removeprefix("\r").removeprefix("\n"), "start"
        for line, newline in _lines(text):
            if self._place == "within":
                events += self._write(line + newline)
                self._place = "start" if newline else "within"
                continue
            self._line += line
            if newline:
                events += self._end_of_line()
                events += self._write(newline) if self._place == "within" else []
                self._place = "start"
            elif not _HEAD_TO_BE.fullmatch(self._line) and not self._line.startswith("### "):
                events += self._end_of_line()
        return events

    def _end_of_line(self) -> list[StepEvent]:
        """Take the held line for what it is: a title, or content."""
        line, self._line = self._line, ""
        if self._place == "within":
            return []
        head = _HEAD.match(line)
        if head is None or head[1]:
            self._place = "within"
            return self._write(line[1:] if head else line)
        self._end_step()
        self.started += 1
        self._title = read_title(line[4:]).strip()
        return [StepStarted(self.started, self._title)]

    def _write(self, text: str) -> list[StepEvent]:
        if not self.started:
            return []
        text = self._space + text if self._content else text.lstrip()
        body = text.rstrip()
        self._space = text[len(body) :]
        if not body:
            return []
        self._content.append(body)
        return [StepText(self.started, body)]

    def _end_step(self) -> None:
        if self.started > len(self.steps) and self._content:
            self.steps.append(Step(title=self._title, content="".join(self._content), action="continue"))
        self._content, self._space = [], ""


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """The lines of a text, each with its line break; the last one has none."""
    *lines, last = text.split("\n")
    yield from ((line, "\n") for line in lines)
    if last:
        yield last, ""


def _tag_or_part(tags: Tags) -> re.Pattern[str]:
    """A tag, with or without backslashes after its first character, or at the end `part`: what may become one."""
    whole = "|".join(rf"{re.escape(tag[0])}\\*{re.escape(tag[1:])}" for tag in tags)
    parts = []
    for tag in tags:
        part = ""
        for character in reversed(tag[1:-1]):
            part = f"(?:{re.escape(character)}{part})?"
        parts.append(rf"{re.escape(tag[0])}\\*{part}")
    return re.compile(rf"(?:{whole})|(?P<part>(?:{'|'.join(parts)})\Z)", re.I)
