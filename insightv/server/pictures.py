"""Clients' images: data URLs, and addresses on allowed hosts; never a path. Decoded in processes of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from insightv.child_processes import ChildEnded, LineChild
from insightv.inputs.fetch import FetchRules, afetch
from insightv.inputs.image_error import ImageError, ImageLimits, shorten
from insightv.inputs.image_sources import checked_bytes, read_image
from insightv.records import Picture
from insightv.server.fairness import Turns

PROCESSES = 2
FETCHES = 8
"""Pictures from other hosts that are fetched, or wait to be decoded, at once."""
DECODE_S = 30.0


class PictureReader:
    """Opens clients' images, at most `PROCESSES` at once; the processes start when they are needed, or with `warm`.

    Threads wait for them, so that they belong to no event loop: test clients of web frameworks have one per request.
    """

    def __init__(self, limits: ImageLimits, hosts: Sequence[str] = ()) -> None:
        self._limits = limits
        self._hosts = frozenset(hosts)
        self._idle: list[LineChild] = []
        self._threads = ThreadPoolExecutor(PROCESSES, "insightv-decoder")
        self._decoding = Turns(PROCESSES)
        self._fetching = Turns(FETCHES)

    async def open_all(self, urls: list[str], client: str = "") -> tuple[Picture, ...]:
        """The pictures at `urls`, in order; `urls` is empty afterwards, as each may be large. Clients take turns.

        Raises:
            ImageError: one of them cannot be used.
        """
        pictures = []
        while urls:
            pictures.append(await self._open(urls.pop(0), client))
        return tuple(pictures)

    async def warm(self) -> None:
        """Start a process, so that the first image need not wait for it."""
        await asyncio.get_running_loop().run_in_executor(self._threads, lambda: self._idle.append(_start()))

    async def aclose(self) -> None:
        """End the processes."""
        while self._idle:
            self._idle.pop().end()

    async def _open(self, url: str, client: str) -> Picture:
        if url[:5].lower() == "data:":
            async with self._decoding.turn(client):
                data = read_image(url, root=None, allow_http=False, limits=self._limits)
                del url  # the picture is a quarter smaller
                return await self._decoded(data)
        async with self._fetching.turn(client):
            data = await self._fetched(url)
            async with self._decoding.turn(client):
                return await self._decoded(data)

    async def _decoded(self, data: bytes) -> Picture:
        work = _Decoding(self._idle, asdict(self._limits), data)
        try:
            head, body = await asyncio.get_running_loop().run_in_executor(self._threads, work.done)
        except ChildEnded:
            text = f"{shorten(data)} could not be decoded: it ended the decoder, or took longer than {DECODE_S:g} s"
            raise ImageError("corrupt", text) from None
        except asyncio.CancelledError:
            work.leave()
            raise
        if "code" in head:
            raise ImageError(head["code"], head["message"])
        return Picture(**head, data=body)

    async def _fetched(self, url: str) -> bytes:
        if not url[:8].lower().startswith(("http://", "https://")):
            raise ImageError("unsupported_scheme", "an image is given as a data URL: data:image/png;base64,...")
        if not self._hosts:
            raise ImageError("remote_not_allowed", "images are not fetched here; send a data URL")
        rules = FetchRules(hosts=self._hosts, max_bytes=self._limits.max_bytes, deadline_s=self._limits.fetch_s)
        return checked_bytes(await afetch(url, rules), url, self._limits)


class _Decoding:
    """One image in one process, for at most `DECODE_S`; the process is idle again afterwards."""

    def __init__(self, idle: list[LineChild], limits: dict[str, Any], data: bytes) -> None:
        self._idle = idle
        self._limits, self._data = limits, data
        self._process: LineChild | None = None
        self._left = False

    def done(self) -> tuple[dict[str, Any], bytes]:
        """The reply of a process; where one that had been idle breaks off, of a fresh one, as it may have been dead.

        Raises:
            ChildEnded: there is none.
        """
        ends = time.monotonic() + DECODE_S
        if (process := self._alive()) is not None:
            with suppress(ChildEnded):
                return self._asked(process, ends)
        return self._asked(_start(), ends)

    def leave(self) -> None:
        """End it, from any thread: nobody waits any more."""
        self._left = True
        if self._process is not None:
            self._process.kill()

    def _alive(self) -> LineChild | None:
        """An idle process; those that have died meanwhile are left."""
        with suppress(IndexError):
            while (process := self._idle.pop()).wait(0):
                process.end()
            return process
        return None

    def _asked(self, process: LineChild, ends: float) -> tuple[dict[str, Any], bytes]:
        self._process = process
        limit_s = 0 if self._left else max(0, ends - time.monotonic())
        reply = process.ask(self._limits, self._data, limit_s=limit_s)
        self._idle.append(process)
        return reply


def _start() -> LineChild:
    return LineChild("insightv.server.decoder")
