r"""A path as text and back: the format in which a trained reasoning agent writes its whole path in one reply.

    <thoughts>
    ### Read the chart
    The red bar ends at 40.
    ### Conclude
    So the difference is 15.
    </thoughts>

A model that reasons and answers in one reply writes its answer below the block, and nothing else there.

Every text goes through and comes back as it was: in a content, a line that begins with `### ` gets a backslash in
front; a tag gets one after its first character (`<\/thoughts>`); a line break in a title is written as U+2424 (and a
real U+2424 gets a backslash). So no step can end its block or begin another step. This file knows no prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from insightv.agents.replies.json_reply import check_text
from insightv.agents.replies.reading import Unreadable
from insightv.errors import ConfigError
from insightv.records import ReasoningPath, Step

Tags = tuple[str, str]
TAGS: Tags = ("<thoughts>", "</thoughts>")

_HEAD = "### "


def to_text(path: ReasoningPath | Sequence[Step], tags: Tags = TAGS) -> str:
    """The steps as one block. Actions are not written: the last step of a whole path is its summary.

    Raises:
        ConfigError: the tags cannot be told from text (see `check_tags`).
    """
    steps = path.steps if isinstance(path, ReasoningPath) else path
    body = "\n".join(f"{_HEAD}{_write_title(step.title)}\n{_write_content(step.content)}" for step in steps)
    body = tag_pattern(tags).sub(_write_tag, body)
    return f"{tags[0]}\n{body}\n{tags[1]}" if steps else f"{tags[0]}\n{tags[1]}"


def from_text(text: str, tags: Tags = TAGS) -> tuple[tuple[Step, ...], bool]:
    """The steps of a block, and whether it is complete.

    What stands before and after the block is not part of the path. Of a block without its closing tag the last step is
    left out, since nothing shows that it is whole; the steps before it all have the action "continue".

    Raises:
        Unreadable: no_block (no opening tag), two_blocks, no_title (text before the first title, or no step in a
            complete block), blank (a step without title or content), bad_characters.
        ConfigError: the tags cannot be told from text (see `check_tags`).
    """
    pattern = tag_pattern(tags)
    check_text(text)
    before, opening, block = text.partition(tags[0])
    if not opening or tags[1] in before:
        raise Unreadable("no_block", f"the text has no {tags[0]} ... {tags[1]} block")
    body, closing, after = block.partition(tags[1])
    if tags[0] in body or tags[0] in after or tags[1] in after:
        raise Unreadable("two_blocks", f"the text has more than one {tags[0]} or {tags[1]}")
    complete = bool(closing)
    body = pattern.sub(_read_tag, body)
    steps = _read_steps(body.removeprefix("\r").removeprefix("\n").removesuffix("\n"), complete)
    if complete and not steps:
        raise Unreadable("no_title", f"the block has no step: a step begins with a line {_HEAD}title")
    return steps, complete


def with_answer(block: str, answer: str, tags: Tags = TAGS) -> str:
    """A reply that reasons and answers: the block of `to_text`, then the answer alone on the lines below it."""
    return f"{block}\n{tag_pattern(tags).sub(_write_tag, answer.strip())}"


def read_answered(text: str, tags: Tags = TAGS) -> tuple[tuple[Step, ...], str]:
    """The steps and the answer of a reply that does both: nothing before the block, and the answer below it.

    Raises:
        Unreadable: the codes of `from_text`; outside (text before the block), no_end (the block is not closed),
            no_answer (nothing stands below it).
        ConfigError: the tags cannot be told from text (see `check_tags`).
    """
    steps, complete = from_text(text, tags)
    before, _, rest = text.partition(tags[0])
    if before.strip():
        raise Unreadable("outside", f"the reply begins with {before.strip()[:40]!r}, not with {tags[0]}")
    if not complete:
        raise Unreadable("no_end", f"the reply ends without {tags[1]}")
    answer = tag_pattern(tags).sub(_read_tag, rest.partition(tags[1])[2]).strip()
    if not answer:
        raise Unreadable("no_answer", f"no answer stands below {tags[1]}")
    return steps, answer


def check_tags(tags: Sequence[str]) -> Tags:
    """The tags as a pair, where escaping can keep them apart from text (a configuration gives a list).

    Raises:
        ConfigError: there are not two; a tag is shorter than two characters, part of the other one, holds white space,
            `#`, a backslash or U+2424, or its first character stands in it twice.
    """
    if isinstance(tags, str) or len(tags) != 2:
        raise ConfigError(f"tags = {tags!r}: needed are two, such as {list(TAGS)}")
    for tag in tags:
        if len(tag) < 2 or tag[0].lower() in tag[1:].lower() or re.search(r"[\s#\\\u2424]", tag):
            raise ConfigError(f"the tag {tag!r} cannot mark a block; use something like {TAGS[0]!r} and {TAGS[1]!r}")
    if tags[0] in tags[1] or tags[1] in tags[0]:
        raise ConfigError(f"the tags {tags[0]!r} and {tags[1]!r} are not different enough; use something like {TAGS!r}")
    return tags[0], tags[1]


@lru_cache(maxsize=16)
def tag_pattern(tags: Tags) -> re.Pattern[str]:
    """A tag in any case, as it is or with backslashes after its first character."""
    check_tags(tags)
    return re.compile("|".join(rf"{re.escape(tag[0])}\\*{re.escape(tag[1:])}" for tag in tags), re.I)


def _write_tag(found: re.Match[str]) -> str:
    return f"{found[0][0]}\\{found[0][1:]}"


def _read_tag(found: re.Match[str]) -> str:
    return found[0].replace("\\", "", 1)


def _read_steps(body: str, complete: bool) -> tuple[Step, ...]:
    first, *parts = re.split(r"^### ", body, flags=re.M)
    if first.strip() and (complete or not _HEAD.startswith(first)):
        raise Unreadable("no_title", f"the block does not begin with a line {_HEAD}title")
    whole = parts if complete else parts[:-1]
    steps = []
    for number, part in enumerate(whole, 1):
        title, _, content = part.partition("\n")
        content = content if number == len(parts) else content.removesuffix("\n")
        title, content = read_title(title), _read_content(content)
        if not title.strip() or not content.strip():
            raise Unreadable("blank", f"step {number} has a blank title or content")
        last = complete and number == len(whole)
        steps.append(Step(title=title, content=content, action="summary" if last else "continue"))
    return tuple(steps)


def _write_title(title: str) -> str:
    return re.sub(r"(\\*)([\n\u2424])", lambda m: m[1] * 2 + ("\u2424" if m[2] == "\n" else "\\\u2424"), title)


def read_title(title: str) -> str:
    """The title that a title line holds."""

    def read(match: re.Match[str]) -> str:
        half, odd = divmod(len(match[1]), 2)
        return "\\" * half + ("\u2424" if odd else "\n")

    return re.sub(r"(\\*)\u2424", read, title)


def _write_content(content: str) -> str:
    return re.sub(r"^(\\*### )", r"\\\1", content, flags=re.M)


def _read_content(content: str) -> str:
    return re.sub(r"^\\(\\*### )", r"\1", content, flags=re.M)
