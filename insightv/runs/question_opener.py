"""Opening a stored question: its images from the run's store, or from their source once and then from the store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from insightv.config.sections import ImageSection
from insightv.inputs.image_error import ImageError
from insightv.inputs.image_store import STORED, ImageStore
from insightv.inputs.images import open_hashed_question
from insightv.inputs.questions import question_digest
from insightv.records import Question
from insightv.runs.database import Database
from insightv.runs.reader import open_stored
from insightv.runs.store import StoredQuestion, pack_question


class QuestionOpener:
    """Opens questions of one run. An image is read, checked, scaled and encoded once per question, in a thread."""

    def __init__(self, database: Database, images: ImageStore, section: ImageSection) -> None:
        self._database = database
        self._images = images
        self._section = section

    async def opened(self, stored: StoredQuestion) -> Question:
        """The question with its pictures, which are in the run's store from now on.

        Raises:
            ImageError: an image cannot be opened any more, or is another one than when the questions were checked.
            StorageFull: the store cannot be written.
        """
        question = stored.question
        if all(isinstance(image, str) and image.startswith(STORED) for image in question.images):
            return await asyncio.to_thread(open_stored, question, self._images)
        opened = await asyncio.to_thread(self._opened, stored)
        packed = pack_question(opened)
        await self._database.write([("UPDATE questions SET record = ? WHERE seq = ?", (packed, stored.seq))])
        return opened

    def _opened(self, stored: StoredQuestion) -> Question:
        root = Path(stored.place) if stored.place else None
        question = open_stored(stored.question, self._images)
        opened, hashes = open_hashed_question(question, root=root, **self._section.opening)
        if question_digest(stored.question, hashes) != stored.digest:
            raise ImageError(
                "changed",
                f"question {stored.question.id!r}: an image is not the one that was checked any more; build again with "
                "the questions file, which names what has changed",
            )
        for picture in opened.pictures:
            self._images.put(picture)
        return opened
