"""Opening a stored question: its images from the run's store, or from their source once and then from the store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from insightv.config import ImageSection
from insightv.database import Database
from insightv.image_sources import ImageLimits
from insightv.image_store import ImageStore
from insightv.images import aopen_question
from insightv.records import Question
from insightv.run import open_stored
from insightv.store import StoredQuestion, pack_question


def image_limits(section: ImageSection) -> ImageLimits:
    """The limits of the settings."""
    return ImageLimits(max_pixels=section.max_pixels)


class QuestionOpener:
    """Opens questions of one run. An image is read, checked, scaled and encoded once per question, in a thread."""

    def __init__(self, database: Database, images: ImageStore, section: ImageSection) -> None:
        self._database = database
        self._images = images
        self._section = section

    async def opened(self, stored: StoredQuestion) -> Question:
        """The question with its pictures, which are in the run's store from now on.

        Raises:
            ImageError: an image cannot be opened any more.
            StorageFull: the store cannot be written.
        """
        question = stored.question
        if all(isinstance(image, str) and image.startswith("sha256:") for image in question.images):
            return await asyncio.to_thread(open_stored, question, self._images)
        root = Path(stored.place) if stored.place else None
        limits, hosts = image_limits(self._section), self._section.allowed
        opened = await aopen_question(question, root=root, allow_http=hosts, limits=limits)
        await asyncio.to_thread(self._keep, opened)
        packed = pack_question(opened)
        await self._database.write([("UPDATE questions SET record = ? WHERE seq = ?", (packed, stored.seq))])
        return opened

    def _keep(self, question: Question) -> None:
        for picture in question.pictures:
            self._images.put(picture)
