"""What the fake server says: a function of its seed, the request's seed and the question, and of nothing else.

A question carries its truth, and may carry its number of steps: "What is 3 + 4? [truth=7] [steps=3]".
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from tests.servers.fake_chains import Reading

TRUTH = re.compile(r"\[truth=([^\]]*)\]")
THOUGHTS = "Write one block in exactly this form"
STEPS = re.compile(r"\[steps=(\d+)\]")
_TEXT = """axis bar height label colour legend count sum read compare left right top middle corner grid value table row
column first second larger smaller equal even odd exact shape edge blue red green grey café Größe → ≥ 数"""
_WORDS = _TEXT.split()
_KINDS = (
    ('"scores"', "path_scores"),
    ('"correct"', "answer_verdict"),
    ('"title"', "reasoning_step"),
    ('"answer"', "final_answer"),
)


def chance(*parts: object) -> float:
    """A number on [0, 1) from the parts."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def kind_of(reading: Reading) -> str | None:
    """Which of the four calls this is; None for plain text."""
    if reading.schema:
        return reading.schema
    asked = reading.texts[-1][1]
    return next((kind for word, kind in _KINDS if word in asked), None)


class Replies:
    """Answers requests. `wrong` is the share of wrong final answers, `steps` the range of a path's length."""

    def __init__(self, seed: int, wrong: float, steps: tuple[int, int], path_pattern: str) -> None:
        self._seed = seed
        self._wrong = wrong
        self._steps = steps
        self._path = re.compile(path_pattern)

    def reply(self, reading: Reading, index: int) -> tuple[str, dict[str, Any]]:
        """The text of choice `index`, and what the log says of it."""
        kind = kind_of(reading)
        texts = reading.texts
        question = next((text for role, text in texts if role == "user"), "")
        draw = (self._seed, reading.fields.get("seed"), index, kind)
        if kind == "reasoning_step":
            return self._step(texts, question, draw)
        if kind == "answer_verdict":
            correct = self._verdict(texts[-1][1])
            return json.dumps({"correct": correct, "reason": "as the truth says"}), {"correct": correct}
        if kind == "path_scores":
            return self._scores(texts[-1][1], draw)
        answer, right = self._answer(question, draw)
        if texts[0][0] == "system" and THOUGHTS in texts[0][1]:
            return self._thoughts(question, answer, draw), {"answer": answer, "right": right}
        said = {"answer": answer, "right": right}
        return (json.dumps({"answer": answer}) if kind == "final_answer" else f"The answer is {answer}."), said

    def _step(
        self, texts: list[tuple[str, str]], question: str, draw: tuple[object, ...]
    ) -> tuple[str, dict[str, Any]]:
        number = 1 + sum(role == "assistant" for role, _ in texts)
        action = "continue" if number < self._length(question) else "summary"
        words = [_WORDS[int(chance(*draw, question, number, place) * len(_WORDS))] for place in range(14)]
        form = {"title": f"{words[0]} {number}", "content": " ".join(words), "action": action}
        # Servers format as they like; whoever serialises a reply anew instead of sending it back as it came is seen.
        indent = 1 if chance(*draw, number) < 0.3 else None
        return json.dumps(form, indent=indent, ensure_ascii=chance(*draw, "ascii") < 0.5), {"step": number, **form}

    def _thoughts(self, question: str, answer: str, draw: tuple[object, ...]) -> str:
        """A whole path in one block; its last step says the answer."""
        steps = [
            json.loads(self._step([("assistant", "")] * number, question, draw)[0])
            for number in range(self._length(question) - 1)
        ]
        blocks = [f"### {step['title']}\n{step['content']}.\n" for step in steps]
        return f"<thoughts>\n{''.join(blocks)}### Conclude\nSo the answer is {answer}.\n</thoughts>"

    def _length(self, question: str) -> int:
        marked = STEPS.search(question)
        low, high = self._steps
        return int(marked[1]) if marked else low + int(chance(self._seed, question) * (high - low + 1))

    def _answer(self, question: str, draw: tuple[object, ...]) -> tuple[str, bool]:
        found = TRUTH.search(question)
        truth = found[1] if found else "unknown"
        if chance(*draw, question) >= self._wrong:
            return truth, True
        return _wrong_answers(truth)[int(chance(*draw, question, "which") * 3)], False

    def _verdict(self, asked: str) -> bool | None:
        found = TRUTH.search(asked)
        if found is None:
            return None
        rest = asked.replace(found[0], "")
        return not any(re.search(rf"(?<![\w.]){re.escape(wrong)}(?![\w])", rest) for wrong in _wrong_answers(found[1]))

    def _scores(self, asked: str, draw: tuple[object, ...]) -> tuple[str, dict[str, Any]]:
        marks = list(self._path.finditer(asked))
        rows = []
        for place, mark in enumerate(marks):
            end = marks[place + 1].start() if place + 1 < len(marks) else len(asked)
            # By content alone, so that a path is scored alike wherever it is shown.
            marked = chance(self._seed, asked[mark.end() : end].strip())
            score = 20 + int(marked * 80)
            parts = {name: max(1, min(100, score + shift)) for name, shift in (("logic", 3), ("grounding", -4))}
            first_error = None if score >= 60 else 1
            rows.append({"path": place + 1, **parts, "completeness": score, "score": score, "first_error": first_error})
        return json.dumps({"scores": rows}), {"scores": [row["score"] for row in rows]}


def _wrong_answers(truth: str) -> list[str]:
    """Three answers that are wrong, and that the verdict knows again."""
    try:
        number = float(truth)
    except ValueError:
        if re.fullmatch("[A-D]", truth):
            return [letter for letter in "ABCD" if letter != truth]
        return [f"not {truth}", f"anything but {truth}", f"never {truth}"]
    return [f"{number + shift:g}" for shift in (11, 23, 57)]
