"""Reads a path's text while it is being written: the same steps as `insightv.transcript.from_text`, piece by piece.

What may still turn out to be a tag, a title line or the white space at a step's end is held back until that is known.
"""

from __future__ import annotations

import re

from insightv.events import StepEvent, StepStarted, StepText
from insightv.records import Step
from insightv.transcript import TAGS, Tags, check_tags, read_title

_HEAD = re.compile(r"(\\*)### ")
_HEAD_TO_BE = re.compile(r"\\*#{0,3}")


class StepReader:
    """Fed with pieces of text. `steps` are those that are certainly whole, `started` counts those that have begun."""

    def __init__(self, tags: Tags = TAGS) -> None:
        self.steps: list[Step] = []
        self.started = 0
        self._tags = check_tags(tags)
        self._held = ""  # not yet looked at: what may be part of a tag
        self._line = ""  # the beginning of a line that may be a title, or a title line that has not ended
        self._space = ""
        self._content: list[str] = []
        self._title = ""
        self._place = "before"  # before the block, at the start of a line, within one, or after the block

    def feed(self, piece: str) -> list[StepEvent]:
        """What a further piece of the text adds."""
        self._held += piece
        if self._place == "before" and not self._opened():
            return []
        events: list[StepEvent] = []
        while self._place != "after":
            text, closed, done = self._untagged()
            events += self._read(text)
            if closed:
                events += self._end_of_line()
                self._end_step()
                self._place = "after"
            if done:
                break
        return events

    def _opened(self) -> bool:
        before, opening, block = self._held.partition(self._tags[0])
        if not opening:
            self._held = before[-len(self._tags[0]) :]
            return False
        self._held, self._place = block, "first"
        return True

    def _untagged(self) -> tuple[str, bool, bool]:
        """The text up to the next tag, whether it ends the block, and whether nothing more can be told now."""
        held = self._held
        at = next((i for i, c in enumerate(held) if any(c.lower() == tag[0].lower() for tag in self._tags)), None)
        if at is None:
            self._held = ""
            return held, False, True
        if held.startswith(self._tags[1], at):
            self._held = ""
            return held[:at], True, True
        tail = held[at + 1 :]
        slashes = len(tail) - len(tail.lstrip("\\"))
        bare = (held[at] + tail[slashes:]).lower()
        for tag in (tag.lower() for tag in self._tags):
            if bare.startswith(tag) and slashes:
                end = at + slashes + len(tag)
                self._held = held[end:]
                return held[: at + 1] + held[at + 2 : end], False, False
            if tag.startswith(bare) and bare != tag:
                self._held = held[at:]
                return held[:at], False, True
        self._held = tail
        return held[: at + 1], False, False

    def _read(self, text: str) -> list[StepEvent]:
        events: list[StepEvent] = []
        if self._place == "first" and text:
            text, self._place = text.removeprefix("\r").removeprefix("\n"), "start"
        while text:
            if self._place == "within":
                line, newline, text = text.partition("\n")
                events += self._write(line + newline)
                self._place = "start" if newline else "within"
                continue
            line, newline, text = (self._line + text).partition("\n")
            self._line = line
            if newline:
                events += self._end_of_line()
                events += self._write(newline) if self._place == "within" else []
                self._place = "start"
            elif not _HEAD_TO_BE.fullmatch(line) and not line.startswith("### "):
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
