"""Whether answers say the same: an answer and the path that it follows, and the paths of one question."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from insightv.agents.replies.conclusion import concluded, sentences
from insightv.assess.rules.decide import decide
from insightv.assess.rules.normalise import final_part
from insightv.records import Question, ReasoningPath

_VERB = re.compile(r"(?i)\b(?:is|are|was|were|equals)\s+")


_MOST_WORDS = 4


_DENIES = re.compile(r"(?i)\b(?:not?|never|neither|none|cannot)\b|n't\b")


def conclusion(path: ReasoningPath) -> str | None:
    """What a path comes to by itself; None where it comes to nothing."""
    return concluded(path).answer


def agrees(question: Question, answer: str, path: ReasoningPath) -> bool | None:
    """Whether a path comes to an answer, as far as rules can tell from its own answer or its last step."""
    own = conclusion(path)
    if own is None:
        return None
    return _same(question, answer, own)


def _same(question: Question, answer: str, other: str) -> bool | None:
    for said in _said(answer):
        for found in _said(other):
            ruling = decide(question.question, said, found, choices=question.choices, tolerance=0.0)
            if ruling.correct is not None:
                return ruling.correct
    return None


def _said(text: str) -> list[str]:
    """What a text comes to: itself, without its wrapping, and what its last sentence says its subject is."""
    found = [text, final_part(text)]
    sentence = sentences(text)[-1]
    parts = _VERB.split(sentence)  # a sentence with several verbs says several things
    if len(parts) == 2 and len(parts[1].split()) <= _MOST_WORDS and not _DENIES.search(sentence):
        found.append(parts[1])
    return list(dict.fromkeys(found))


def agreement(question: Question, answer: str, paths: Sequence[ReasoningPath]) -> float | None:
    """The share of paths that come to the answer, among those of which that can be told; None where there is none."""
    known = [verdict for path in paths if (verdict := agrees(question, answer, path)) is not None]
    return sum(known) / len(known) if known else None


def majority(question: Question, paths: Sequence[ReasoningPath]) -> str | None:
    """What most of the whole paths come to by themselves, the first on a tie; None where none comes to anything."""
    said = Counter(own for path in paths if path.status == "ok" and (own := conclusion(path)) is not None)
    if len(said) < 2:
        return next(iter(said), None)

    def votes(text: str) -> int:
        return sum(count for other, count in said.items() if other == text or _same(question, text, other))

    return max(said, key=votes)
