"""The held-out questions of a training: read, and held against everything that is trained on.

What counts is what is asked about which pictures. Ids, meta and answers may differ, and it is still the same question.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from insightv.config.settings import Settings
from insightv.errors import InputError
from insightv.inputs.fields import same_text
from insightv.inputs.images import open_question
from insightv.inputs.questions import QuestionFile, read_questions
from insightv.runs.reader import RunReader

Content = tuple[str, tuple[str, ...]]
"""A question's text and the digests of its pictures as they are sent."""


def read_heldout(
    settings: Settings, folder: Path, general: QuestionFile | None = None, external: QuestionFile | None = None
) -> QuestionFile | None:
    """The questions of `train.heldout`, none of which is in the run, in the `general` data or the `external` pairs.

    Raises:
        InputError: one is, or the file cannot be used.
    """
    if settings.train.heldout is None:
        return None
    opening = settings.images.opening
    file = read_questions(
        settings.train.heldout,
        columns=settings.questions.columns,
        layout=settings.questions.layout,
        answer=settings.questions.answer,
        require_answer=True,
        **opening,
    )
    asked = {same_text(question.question) for question in file}

    def contents(questions: QuestionFile, texts: set[str]) -> Iterator[tuple[str, Content]]:
        for question in questions:
            if (text := same_text(question.question)) in texts:
                opened = open_question(question, root=questions.root, **opening)
                yield question.id, (text, tuple(picture.sha256 for picture in opened.pictures))

    trained = dict.fromkeys(_of_run(folder, asked), "the run that is trained on")
    if general is not None:
        where = f"datasets.general = {settings.datasets.general!r}"
        trained |= {content: where for _, content in contents(general, asked)}
    if external is not None:
        trained |= {content: f"the pairs of {external.name}" for _, content in contents(external, asked)}
    both = [(id, content) for id, content in contents(file, {text for text, _ in trained}) if content in trained]
    if both:
        id, content = both[0]
        raise InputError(
            f"{settings.train.heldout}: {len(both)} of {len(file)} held-out questions are trained on too (the first is "
            f"{id!r}, in {trained[content]}); hold out other questions"
        )
    return file


def _of_run(folder: Path, asked: set[str]) -> Iterator[Content]:
    with RunReader(folder) as run:
        for question in run.questions():
            if (text := same_text(question.question)) in asked:
                yield text, tuple(str(image).removeprefix("sha256:") for image in question.images)
