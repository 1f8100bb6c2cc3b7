"""The processes that decode clients' images: one that has died costs no client its picture."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from insightv.image_sources import ImageError, ImageLimits
from insightv.server import pictures
from insightv.server.pictures import PictureDesk
from insightv.testing import sample_picture

URL = sample_picture().data_url


def with_desk(work: Callable[[PictureDesk], Awaitable[None]]) -> None:
    async def run() -> None:
        desk = PictureDesk(ImageLimits())
        try:
            await desk.warm()
            await work(desk)
        finally:
            await desk.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("noticed", [True, False])
def test_a_decoder_that_died_while_idle_costs_no_picture(noticed: bool) -> None:
    async def work(desk: PictureDesk) -> None:
        [dead] = desk._idle
        os.kill(dead.pid, signal.SIGKILL)
        if noticed:
            await dead.wait()
        [picture] = await desk.open_all([URL])
        assert (picture.width, picture.height) == (sample_picture().width, sample_picture().height)
        [alive] = desk._idle
        assert alive.pid != dead.pid

    with_desk(work)


def test_a_picture_that_ends_its_decoders_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    start = pictures._start

    async def start_and_stop() -> object:
        process = await start()
        begun.append(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        return process

    async def work(desk: PictureDesk) -> None:
        os.kill(desk._idle[0].pid, signal.SIGKILL)
        monkeypatch.setattr(pictures, "_start", start_and_stop)
        with pytest.raises(ImageError, match="could not be decoded") as caught:
            await desk.open_all([URL])
        assert caught.value.code == "corrupt"
        assert len(begun) == 1
        assert desk._idle == []

    with_desk(work)


def test_ctrl_c_at_the_terminal_does_not_reach_the_decoders() -> None:
    async def work(desk: PictureDesk) -> None:
        assert os.getpgid(desk._idle[0].pid) != os.getpgid(0)

    with_desk(work)
