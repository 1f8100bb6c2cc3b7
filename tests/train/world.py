"""Small assessed runs for the tests of this room: real pictures, paths of every status and band."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from insightv.assess.bands import Assessed, AssessedPath, AssessedQuestion
from insightv.records import Band, Message, Picture, Question, ReasoningPath, Score, Step, Usage

INSTRUCTION = "Reason step by step."


def picture(number: int, size: int = 12, noise: bool = False) -> Picture:
    if noise:
        pixels = b"".join(hashlib.sha256(f"{number}/{i}".encode()).digest() for i in range(size * size * 3 // 32 + 1))
        image = Image.frombytes("RGB", (size, size), pixels[: size * size * 3])
    else:
        image = Image.new("RGB", (size, size), (number % 256, number // 256 % 256, 77))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = buffer.getvalue()
    return Picture(data=data, mime="image/png", sha256=hashlib.sha256(data).hexdigest(), width=size, height=size)


def path(
    question: str, index: int, band: Band | None, value: float | None = None, *, code: str | None = None, text: str = ""
) -> AssessedPath:
    if code is not None:
        bad = ReasoningPath(
            question_id=question,
            index=index,
            status="failed" if code == "timeout" else "rejected",
            code=code,
            detail=f"why {code}",
        )
        return AssessedPath(bad)
    steps = (
        Step(title="Look", content=text or f"{question} path {index}: the bar is at 4.", action="continue"),
        Step(title="Conclude", content="So the answer is 4.", action="summary"),
    )
    good = ReasoningPath(
        question_id=question,
        index=index,
        status="ok",
        steps=steps,
        answer="4",
        model="openai/teacher",
        seed=100 + index,
        usage=Usage(prompt_tokens=10, completion_tokens=5, requests=3),
        calls=(f"{question}-{index}-a", f"{question}-{index}-b"),
    )
    right = None if band in (None, Band.unscored) else band is not Band.wrong
    scores = [Score(scorer="answer", accepted=right, reason="rule")]
    if value is not None:
        scores.append(Score(scorer="path", value=value, accepted=True, details={"logic": 80, "odd": float("nan")}))
    return AssessedPath(good, tuple(scores), band)


def question(name: str, images: Sequence[Picture | str], **more: object) -> Question:
    fields: dict[str, object] = {"answer": "4", "meta": {"family": "reasoning", "source": "charts", "licence": "CC0"}}
    return Question.model_validate(
        {"id": name, "question": f"What is {name}?", "images": tuple(images)} | fields | more
    )


def mixed(number: int, images: Sequence[Picture | str] | None = None) -> AssessedQuestion:
    """A question with a path of every kind."""
    name = f"q{number}"
    shown = [picture(number)] if images is None else images
    return AssessedQuestion(
        question(name, shown),
        (
            path(name, 0, Band.high, 85),
            path(name, 1, Band.high, 90 + number % 5),
            path(name, 2, Band.mid, 50 + number % 30),
            path(name, 3, Band.low, 10 + number % 40),
            path(name, 4, Band.wrong),
            path(name, 5, Band.unscored),
            path(name, 6, None, code="malformed"),
            path(name, 7, None, code="timeout"),
        ),
    )


def run_of(count: int, make: Callable[[int], AssessedQuestion] = mixed) -> Assessed:
    def assessed() -> Iterator[AssessedQuestion]:
        return (make(number) for number in range(count))

    return assessed


def prompt(asked: Question) -> list[Message]:
    return [
        Message(role="system", content=INSTRUCTION),
        Message(role="user", content=(*asked.pictures, asked.text)),
    ]


def render(asked: Question, shown: ReasoningPath) -> list[Message]:
    text = f"QUESTION: {asked.text}\n\nREASONING:\n" + "\n".join(step.content for step in shown.steps)
    return [Message(role="system", content="Judge it."), Message(role="user", content=(*asked.pictures, text))]
