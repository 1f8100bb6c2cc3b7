"""`insightv serve`: listens, takes signals, and lets the questions at work end before it goes."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from insightv.errors import ConfigError
from insightv.machine import allow_open_files
from insightv.reasoner import Reasoner
from insightv.serve_settings import ServeSection
from insightv.server.app import make_app
from insightv.server.guard import LOOPBACK

HEADER_S = 20.0
"""The time that a new connection has for the headers of its first request."""


BACKLOG = 2048


class PatientProtocol(H11Protocol):
    """Closes connections that never say what they want."""

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._hurry = self.loop.call_later(HEADER_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._hurry.cancel()
        super().connection_lost(exc)

    def _too_slow(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class DrainingServer(uvicorn.Server):
    """Ends on SIGTERM or SIGINT once the questions at work are answered; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.signal = 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals on the loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _on_signal(self, number: int) -> None:
        if self.signal:
            os._exit(128 + number)
        self.signal = number
        self.should_exit = True


def key_for(limits: ServeSection) -> str | None:
    """The key that clients must send, from the environment; None on loopback where there is none.

    Raises:
        ConfigError: the address is not loopback, and there is no key.
    """
    key = os.environ.get(limits.api_key_env, "").strip()
    if not key and not is_loopback(limits.host):
        raise ConfigError(
            f"serve.host = {limits.host!r} is not loopback, so clients must send a key; put one into the environment "
            f"variable {limits.api_key_env}, or leave the host out"
        )
    if key and not key.isascii():
        raise ConfigError(f"the key in {limits.api_key_env} has characters that are not ASCII; use others")
    return key or None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listen(limits: ServeSection) -> socket.socket:
    """A socket that listens at the address, so that whoever is told of it can connect.

    Raises:
        ConfigError: it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in limits.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((limits.host.strip("[]"), limits.port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        where = f"{limits.host}:{limits.port}"
        raise ConfigError(f"cannot listen on {where}: {error.strerror or error}; choose another port") from None
    return bound


async def serve(
    reasoner: Reasoner, limits: ServeSection, *, max_pixels: int, ready: Callable[[str], None] = lambda url: None
) -> int:
    """Serve until a signal comes; returns its number. `ready` is told the address. The reasoner is closed at the end.

    Raises:
        ConfigError: an engine cannot be asked, the address cannot be used, or a key is missing.
    """
    bound: socket.socket | None = None
    try:
        key = key_for(limits)
        bound = listen(limits)
        hosts = {*LOOPBACK, limits.host, *limits.hosts} if is_loopback(limits.host) else None
        app = make_app(reasoner, limits=limits, key=key, hosts=hosts, max_pixels=max_pixels)
        try:
            await app.warm()
            allow_open_files(1 << 16)  # an idle client takes one each
            server = DrainingServer(_config(app, limits))
            host = f"[{limits.host}]" if ":" in limits.host else limits.host
            ready(f"http://{host}:{bound.getsockname()[1]}")
            await server.serve(sockets=[bound])
        finally:
            await app.aclose()
        return server.signal
    finally:
        if bound is not None:
            bound.close()
        await reasoner.aclose()


def _config(app: Any, limits: ServeSection) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(limits.drain_s)),
    )
