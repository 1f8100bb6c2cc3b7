"""The processes that decode clients' images: one that has died costs no client its picture."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable

import pytest

from insightv.child_processes import LineChild
from insightv.inputs.image_error import ImageError, ImageLimits
from insightv.server import pictures
from insightv.server.pictures import PictureReader
from insightv.testing import sample_picture

URL = sample_picture().data_url


def with_desk(work: Callable[[PictureReader], Awaitable[None]]) -> None:
    async def run() -> None:
        desk = PictureReader(ImageLimits())
        try:
            await desk.warm()
            await work(desk)
        finally:
            await desk.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("noticed", [True, False])
def test_a_decoder_that_died_while_idle_costs_no_picture(noticed: bool) -> None:
    async def work(desk: PictureReader) -> None:
        [dead] = desk._idle
        os.kill(dead.pid, signal.SIGKILL)
        if noticed:
            dead.wait()
        [picture] = await desk.open_all([URL])
        assert (picture.width, picture.height) == (sample_picture().width, sample_picture().height)
        [alive] = desk._idle
        assert alive.pid != dead.pid

    with_desk(work)


def test_a_picture_that_ends_its_decoders_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    start = pictures._start

    def start_and_stop() -> LineChild:
        process = start()
        begun.append(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        return process

    async def work(desk: PictureReader) -> None:
        os.kill(desk._idle[0].pid, signal.SIGKILL)
        monkeypatch.setattr(pictures, "_start", start_and_stop)
        with pytest.raises(ImageError, match="could not be decoded") as caught:
            await desk.open_all([URL])
        assert caught.value.code == "corrupt"
        assert len(begun) == 1
        assert desk._idle == []

    with_desk(work)


def test_ctrl_c_at_the_terminal_does_not_reach_the_decoders() -> None:
    async def work(desk: PictureReader) -> None:
        assert os.getpgid(desk._idle[0].pid) != os.getpgid(0)

    with_desk(work)


def test_pictures_are_opened_in_whatever_loop_asks() -> None:
    desk = PictureReader(ImageLimits())
    try:
        found = [asyncio.run(desk.open_all([URL, URL])) for _ in range(3)]
        assert len(set(found)) == 1
        assert len(desk._idle) == 1
    finally:
        asyncio.run(desk.aclose())


def test_a_decoder_outlives_the_thread_that_asked_for_it() -> None:
    desk = PictureReader(ImageLimits())

    def warm_and_open() -> None:
        asyncio.run(desk.warm())
        asyncio.run(desk.open_all([URL]))

    asking = threading.Thread(target=warm_and_open)
    asking.start()
    asking.join()
    [decoder] = desk._idle
    assert not decoder.wait(0.5), "the system ends a child with the thread that started it"
    asyncio.run(desk.aclose())


@pytest.mark.parametrize("late", [True, False])
def test_a_picture_that_nobody_waits_for_any_more_frees_its_process(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[LineChild] = []
    start = pictures._start

    def start_a_sleeper() -> LineChild:
        begun.append(start())
        os.kill(begun[-1].pid, signal.SIGSTOP)
        return begun[-1]

    async def run() -> None:
        desk = PictureReader(ImageLimits())
        opening = asyncio.create_task(desk.open_all([URL]))
        while not begun:
            await asyncio.sleep(0.01)
        if not late:
            opening.cancel()
        with pytest.raises(ImageError if late else asyncio.CancelledError):
            await opening
        assert await asyncio.to_thread(begun[0].wait, 10)
        assert desk._idle == []

    monkeypatch.setattr(pictures, "_start", start_a_sleeper)
    monkeypatch.setattr(pictures, "DECODE_S", 0.5 if late else 50)
    asyncio.run(run())
    assert len(begun) == 1
