"""Runs for reports: built by the real pipeline, with roles of its tests that write long or hostile texts at once."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from insightv import Generator, Pipeline, Question, ReasoningPath, Score, Scorer, Step
from insightv.config.settings import check_settings
from insightv.records import Usage

WORDS = "the axis of this bar reaches a value between two labels so we read the grid and compare both columns again"
HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "<!--<script>",
    "]]>&lt;b&gt;&amp;\u2028\u2029\u202egnp.exe\u0000\u001b[31m",
    "{{constructor.constructor('return 1')()}} ${1} javascript:alert(1) \\u003c \\",
    "'\"` onload=alert(1) style=position:fixed",
)


def draw(total: int, *parts: object) -> int:
    """A number below `total` from the parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big") % total


class Writer(Generator):
    """Paths of `size` characters or so a step, without a model; a fifth of the answers are wrong, some are rejected."""

    def __init__(self, size: int = 240, texts: Sequence[str] = ()) -> None:
        self._size, self._texts = size, texts

    async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
        return [self._path(question, index) for index in range(n)]

    def _path(self, question: Question, index: int) -> ReasoningPath:
        known: dict[str, Any] = {"question_id": question.id, "index": index, "model": self._text("writer/model", 1)}
        known["usage"] = Usage(prompt_tokens=900, cached_tokens=700, completion_tokens=120, requests=4)
        if draw(25, question.id, index) == 0:
            return ReasoningPath(status="rejected", code="bad_json", detail=self._text("no JSON in it", 2), **known)
        steps = [
            Step(
                title=self._text(f"Look at {WORDS.split()[draw(19, question.id, index, at)]}", at),
                content=self._text((f"{question.id} {index}.{at}: " + WORDS + ". ") * 9, at + 1)[: self._size],
                action="continue",
            )
            for at in range(3 + draw(4, question.id, index))
        ]
        right = draw(5, question.id, "right", index) > 0
        answer = question.answer if right else self._text("1234567", 3)
        return ReasoningPath(status="ok", steps=tuple(steps), answer=answer, flags=(self._text("a flag", 4),), **known)

    def _text(self, plain: str, at: int) -> str:
        return self._texts[at % len(self._texts)] if self._texts else plain


class Judge(Scorer):
    """A value by chance, and sometimes a first faulty step."""

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self._texts = texts

    async def score(self, question: Question, paths: Sequence[ReasoningPath]) -> list[Score]:
        found = []
        for path in paths:
            value = 1 + draw(100, question.id, path.index, "value")
            fault = 1 + draw(len(path.steps), path.index) if value < 50 else None
            details: dict[str, Any] = {"first_error": fault, "logic": value, "calls": ["00" * 32]}
            details |= {text: {text: [text]} for text in self._texts}
            reason = self._texts[0] if self._texts else "as drawn"
            found.append(Score(scorer="judge", value=value, accepted=True, reason=reason, details=details))
        return found


def questions(folder: Path, count: int, *, side: int = 48, texts: Sequence[str] = ()) -> list[Question]:
    """Questions of one noisy picture each, as files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        noise = hashlib.shake_128(str(number).encode()).digest(12 * 12 * 3)
        picture = Image.frombytes("RGB", (12, 12), noise).resize((side, side), Image.Resampling.BICUBIC)
        file = folder / f"{number}.png"
        picture.save(file)
        text = (
            "".join(filter(str.isprintable, texts[number % len(texts)]))
            if texts
            else f"How high is bar {number} in this chart?"
        )
        name = f"{text[:60]} {number}" if texts else f"q{number}"
        answer = text if texts else str(number)
        made.append(Question(id=name, question=text, images=(str(file),), answer=answer, choices=None))
    return made


def build(run: Path, asked: list[Question], *, paths: int = 4, size: int = 240, texts: Sequence[str] = ()) -> Path:
    """Build a run of them; returns its folder."""
    settings = check_settings({"generator": {"paths": paths}})
    scorers: list[Scorer | str] = ["answer", Judge(texts)]
    pipeline = Pipeline(run=run, generator=Writer(size, texts), scorers=scorers, settings=settings)
    pipeline.build(asked, datasets=False)
    return run


def blob(page: Path) -> dict[str, Any]:
    """The data that a report carries for its browser of paths."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def noisy(side: int, seed: int) -> bytes:
    """A picture that no format makes small."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), hashlib.shake_128(str(seed).encode()).digest(side * side * 3)).save(
        buffer, "JPEG", quality=95
    )
    return buffer.getvalue()
