"""The command `insightv questions`: how the first rows of a file are read, before anything is spent."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from insightv.cli.terminal import Changes, Config, out, say

if TYPE_CHECKING:
    from insightv.records import Question

_SHOWN = 300


def questions(
    file: Annotated[str, typer.Argument(help="JSONL, CSV, TSV or Parquet file, a saved folder, or hf:NAME.")],
    config: Config = None,
    changes: Changes = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows are shown.")] = 3,
) -> None:
    """Show how the first rows of a questions file are read; asks no model."""
    from insightv.config.settings import load_settings
    from insightv.inputs.questions import read_questions

    path = config or (Path("insightv.toml") if Path("insightv.toml").is_file() else None)
    settings = load_settings(path, changes or ())
    found = read_questions(
        file,
        columns=settings.questions.columns,
        layout=settings.questions.layout,
        answer=settings.questions.answer,
        **settings.images.opening,
    )
    for warning in found.warnings:
        say(f"warning: {warning}")
    for question in islice(found, rows):
        out("\n".join(_lines(question)))
    out(f"{len(found)} questions in {found.name}")


def _lines(question: Question) -> list[str]:
    shown = [f"id        {question.id}", f"question  {_cut(question.question)}"]
    shown += [f"image {at}   {_cut(str(image), 60)}" for at, image in enumerate(question.images, 1)] or [
        "images    none"
    ]
    shown += [f"choice {chr(ord('A') + at)}  {_cut(choice)}" for at, choice in enumerate(question.choices or ())]
    also = f" (as right: {', '.join(map(_cut, question.answers))})" if question.answers else ""
    return [*shown, f"answer    {'none' if question.answer is None else _cut(question.answer)}{also}", ""]


def _cut(text: str, length: int = _SHOWN) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"
