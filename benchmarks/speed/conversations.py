"""The conversations of the work as messages, put together with as little effort as can be.

For the bare client and the simulated schedule. The prompts are the product's own, so bodies and tokens are alike.
"""

from __future__ import annotations

from typing import Any

from benchmarks.speed.work import IMAGE, is_right, question_of, truth_of
from insightv.agents import generator
from insightv.assess import answer, path_prompt

Message = dict[str, Any]
_NONCE = "0123456789ab"
SYSTEM: Message = {"role": "system", "content": generator.SYSTEM_PROMPT}
NEXT: Message = {"role": "user", "content": generator.NEXT_PROMPT}
FINAL: Message = {"role": "user", "content": generator.FINAL_PROMPT}
CHECK_SYSTEM: Message = {"role": "system", "content": answer.SYSTEM_PROMPT}
GRADE_SYSTEM: Message = {"role": "system", "content": path_prompt.SYSTEM_PROMPT}
_CHECK = answer.USER_PROMPT.replace("{{nonce}}", _NONCE)
_GRADE = path_prompt.USER_PROMPT.replace("{{nonce}}", _NONCE)


def said(text: str) -> Message:
    """A reply as it goes back."""
    return {"role": "assistant", "content": text}


def asked(item: int, text: str | None = None, url: str | None = None) -> Message:
    """The user's message with the picture; where no picture is given, a short text stands for it."""
    parts = [
        {"type": "image_url", "image_url": {"url": url or f"{IMAGE}{item}"}},
        {"type": "text", "text": text or question_of(item)},
    ]
    return {"role": "user", "content": parts}


def check(item: int, given: str) -> Message:
    """The user's message of an answer check."""
    text = _CHECK.replace("{{question}}", "| " + question_of(item)).replace("{{truth}}", "| " + truth_of(item))
    return {"role": "user", "content": text.replace("{{answer}}", "| " + given)}


def grade(item: int, paths: list[tuple[list[tuple[str, str]], str]]) -> str:
    """The user's text of a scoring call; a path is its steps' titles and contents, and its answer."""
    blocks = []
    for number, (steps, given) in enumerate(paths, 1):
        lines = [f"=== PATH {number} {_NONCE} ==="]
        for count, (title, content) in enumerate(steps, 1):
            lines += [f"Step {count}", "| " + title, "| " + content]
        blocks.append("\n".join([*lines, "Answer", "| " + given, f"=== END {_NONCE} ==="]))
    text = _GRADE.replace("{{question}}", "| " + question_of(item)).replace("{{count}}", str(len(paths)))
    return text.replace("{{paths}}", "\n\n".join(blocks))


def accepted(item: int, answers: list[str]) -> list[int]:
    """The paths whose answers the check lets through."""
    return [way for way, given in enumerate(answers) if is_right(item, given)]
