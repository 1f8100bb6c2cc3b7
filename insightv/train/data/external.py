"""Preference data that somebody else made: rows of question, images, chosen and rejected reply -> preference pairs.

    read_external(Path("rlaif.jsonl"), shown)

A row is as a question's (`question`, `images` or `image`, JSONL, Parquet or CSV) with the replies `chosen` and
`rejected` as texts, trained on as they stand (the paper's RLAIF row).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from insightv.agents.replies.reading import Unreadable
from insightv.agents.replies.transcript import TAGS, Tags, from_text
from insightv.errors import InputError
from insightv.inputs.images import Opening, open_question
from insightv.inputs.questions import QuestionFile, read_questions
from insightv.records import PreferencePair, Question, ReasoningPath, Step
from insightv.train.data.pairs import Shown

MARGIN = 100.0
"""What a pair counts as whose replies nobody scored: as far apart as points of score can be."""

_SHOWN = 50


def read_external(
    file: Path,
    shown: Shown,
    *,
    tags: Tags = TAGS,
    raise_if_stopped: Callable[[], None] = lambda: None,
    **opening: Unpack[Opening],
) -> list[PreferencePair]:
    """The pairs of a file, in order. `shown` goes into each pair's `meta`; a reply in `tags` is read as a path.

    Raises:
        InputError: the file cannot be read, or rows cannot be used; every one is named.
        ImageError: a picture cannot be opened any more.
    """
    rows = check_external(file, **opening)
    pairs = []
    for number, question in enumerate(rows, 1):
        raise_if_stopped()
        opened = open_question(question, root=rows.root, **opening)
        replies = {name: str(question.meta[name]) for name in ("chosen", "rejected")}
        paths = {name: _path(question.id, place, replies[name], tags) for place, name in enumerate(replies)}
        meta = {"source": str(file), "row": number, "replies": replies, "prompt": shown(opened)}
        pairs.append(PreferencePair(question_id=question.id, margin=MARGIN, meta=meta, **paths))
    return pairs


def check_external(file: Path, **opening: Unpack[Opening]) -> QuestionFile:
    """The rows of a file of pairs as questions, their replies in `meta`; raises InputError as `read_external`."""
    rows = read_questions(file, columns={"id": "@content"}, **opening)
    faults = [
        f"{rows.name}: pair {number} ({question.question[:40]!r}): {fault}"
        for number, question in enumerate(rows, 1)
        if (fault := _fault(question))
    ]
    if faults:
        more = f"\n... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise InputError("\n".join([f"{len(faults)} bad pairs", *faults[:_SHOWN]]) + more)
    return rows


def _fault(question: Question) -> str | None:
    for name in ("chosen", "rejected"):
        reply = question.meta.get(name)
        if not isinstance(reply, str) or not reply.strip():
            return f"{name}: {'missing' if reply is None else 'not a text, or blank'}; give the reply as a text"
    if "".join(question.meta["chosen"].split()) == "".join(question.meta["rejected"].split()):
        return "rejected: the same as chosen; there is nothing to prefer"
    return None


def _path(question_id: str, index: int, reply: str, tags: Tags) -> ReasoningPath:
    try:
        steps, _ = from_text(reply, tags)
    except Unreadable:
        steps = (Step(title="Reply", content=reply, action="summary"),)
    return ReasoningPath(question_id=question_id, index=index, status="ok", steps=steps, model="external")
