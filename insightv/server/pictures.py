"""Clients' images: data URLs, and addresses on allowed hosts; never a path. Decoded in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from typing import Any

from insightv.fetch import FetchRules, afetch
from insightv.image_sources import ImageError, ImageLimits, checked_bytes, read_image, shorten
from insightv.records import Picture
from insightv.server.decoder import LENGTHS, frame

PROCESSES = 2
DECODE_S = 30.0


class PictureDesk:
    """Opens clients' images, at most `PROCESSES` at once; the processes start when they are needed, or with `warm`."""

    def __init__(self, limits: ImageLimits, hosts: Sequence[str] = ()) -> None:
        self._limits = limits
        self._hosts = frozenset(hosts)
        self._idle: list[Process] = []
        self._turns: asyncio.Semaphore | None = None

    async def open_all(self, urls: Sequence[str]) -> tuple[Picture, ...]:
        """The pictures at `urls`, in order.

        Raises:
            ImageError: one of them cannot be used.
        """
        return tuple([await self._open(url) for url in urls])

    async def warm(self) -> None:
        """Start a process, so that the first image need not wait for it."""
        self._idle.append(await _start())

    async def aclose(self) -> None:
        """End the processes."""
        while self._idle:
            await _end(self._idle.pop())

    async def _open(self, url: str) -> Picture:
        data = await self._bytes(url)
        limits = {"max_bytes": self._limits.max_bytes, "max_source_pixels": self._limits.max_source_pixels}
        request = frame({**limits, "max_pixels": self._limits.max_pixels}, data)
        self._turns = self._turns or asyncio.Semaphore(PROCESSES)
        try:
            async with self._turns, asyncio.timeout(DECODE_S):
                head, body = await self._decoded(request)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            text = f"{shorten(data)} could not be decoded: it ended the decoder, or took longer than {DECODE_S:g} s"
            raise ImageError("corrupt", text) from None
        if "code" in head:
            raise ImageError(head["code"], head["message"])
        return Picture(**head, data=body)

    async def _decoded(self, request: bytes) -> tuple[dict[str, Any], bytes]:
        """The reply of a process; where one that had been idle breaks off, of a fresh one, as it may have been dead."""
        if (process := await self._alive()) is not None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                return await self._asked(process, request)
        return await self._asked(await _start(), request)

    async def _alive(self) -> Process | None:
        """An idle process; those that have died meanwhile are left."""
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
            await _end(process)
        return None

    async def _asked(self, process: Process, request: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            reply = await _exchange(process, request)
        except BaseException:
            await _end(process)
            raise
        self._idle.append(process)
        return reply

    async def _bytes(self, url: str) -> bytes:
        kind = url[:8].lower()
        if kind.startswith("data:"):
            return read_image(url, root=None, allow_http=False, limits=self._limits)
        if not kind.startswith(("http://", "https://")):
            raise ImageError("unsupported_scheme", "an image is given as a data URL: data:image/png;base64,...")
        if not self._hosts:
            raise ImageError("remote_not_allowed", "images are not fetched here; send a data URL")
        rules = FetchRules(hosts=self._hosts, max_bytes=self._limits.max_bytes, deadline_s=self._limits.fetch_s)
        return checked_bytes(await afetch(url, rules), url, self._limits)


async def _start() -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "insightv.server.decoder",
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,  # Ctrl-C goes to the terminal's whole group, and questions that drain need decoders
    )


async def _exchange(process: Process, request: bytes) -> tuple[dict[str, Any], bytes]:
    to, back = process.stdin, process.stdout
    if to is None or back is None:
        raise ConnectionError("the decoder has no pipes")
    to.write(request)
    await to.drain()
    head_length, data_length = LENGTHS.unpack(await back.readexactly(LENGTHS.size))
    head = json.loads(await back.readexactly(head_length))
    return head, await back.readexactly(data_length)


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
    process._transport.close()  # type: ignore[attr-defined]  # or its pipes stay open until collected
