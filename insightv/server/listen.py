"""`insightv serve`: listens, takes signals, and lets the questions at work end before it goes."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn

from insightv.config.sections import ServeSection
from insightv.errors import ConfigError
from insightv.reasoner.reasoner import Reasoner
from insightv.runs.host_limits import allow_open_files
from insightv.server.accept import Entrance, most_connections
from insightv.server.app import make_app
from insightv.server.connection import BoundedProtocol
from insightv.server.guard import LOOPBACK, Guard
from insightv.server.shutdown import Signals

HEADER_S = 20.0
"""The time that a connection has for the headers of a request, once it is new or has been idle."""
IDLE_S = 30
"""The time that a connection may be idle between requests."""
STUCK_S = 60.0
"""The time in which a client must take what is buffered for it, about 64 kB."""
LAST_WORDS_S = 2
"""The time that questions have for telling that the server is being stopped."""
BACKLOG = 2048


class PatientProtocol(BoundedProtocol):
    """Ends connections that never say what they want, at first or after an earlier request, or take no replies."""

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._hurry = self.loop.call_later(HEADER_S, self._too_slow)
        self._stuck: asyncio.TimerHandle | None = None

    def on_response_complete(self) -> None:
        """Called by uvicorn when a request is answered."""
        self._hurry.cancel()
        self._hurry = self.loop.call_later(IDLE_S + HEADER_S, self._too_slow)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().pause_writing()
        self._stuck = self.loop.call_later(STUCK_S, self.transport.abort)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._raise_if_stopped()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._hurry.cancel()
        self._raise_if_stopped()
        super().connection_lost(exc)

    def _raise_if_stopped(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()

    def _too_slow(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()  # one that is closing may wait for ever to be rid of the last reply


class DrainingServer(uvicorn.Server):
    """Ends on a signal, once the questions at work are answered; those that take longer get an error."""

    def __init__(self, app: Guard, limits: ServeSection) -> None:
        super().__init__(_config(app, limits))
        self._most = limits.max_connections or most_connections(limits.concurrency)
        self._entrances: list[Entrance] = []

    def drain(self, app: Guard, seconds: float) -> None:
        """Begin to end."""
        self.should_exit = True
        asyncio.get_running_loop().call_later(seconds, app.stop)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Let clients in. Called by uvicorn."""
        self.servers = []
        protocol = partial(PatientProtocol, self.config, self.server_state, {})
        inside = self.server_state.connections.__len__
        self._entrances = [Entrance(bound, protocol, inside, self._most) for bound in sockets or ()]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in any more, and close the connections that are open. Called by uvicorn."""
        for entrance in self._entrances:
            await entrance.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: `serve` takes them, from before the engines are asked."""
        yield


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
    """A socket that listens at the address, so that a client can connect as soon as the address is known.

    Raises:
        ConfigError: it cannot be bound.
    """
    host = limits.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY by the protocol
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, limits.port))
        bound.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {in_url(host)}:{limits.port}: {reason}; choose another port") from None
    return bound


def in_url(host: str) -> str:
    """An address as it stands in a URL: one of IPv6 in brackets."""
    bare = host.strip("[]")
    return f"[{bare}]" if ":" in bare else bare


async def serve(
    reasoner: Reasoner, limits: ServeSection, *, max_pixels: int, ready: Callable[[str], None] = lambda url: None
) -> int:
    """Serve until a signal comes; returns its number. `ready` is called with the address.

    The reasoner is closed at the end.

    Raises:
        ConfigError: an engine cannot be asked, the address cannot be used, or a key is missing.
    """
    task = asyncio.current_task()
    signals = Signals(lambda: task and task.cancel())
    try:
        with signals.taken():
            await _serve(reasoner, limits, max_pixels, ready, signals)
    except asyncio.CancelledError:
        if not signals.number or task is None or task.uncancel():
            raise
    finally:
        await reasoner.aclose()
    return signals.number


async def _serve(
    reasoner: Reasoner, limits: ServeSection, max_pixels: int, ready: Callable[[str], None], signals: Signals
) -> None:
    key = key_for(limits)
    with listen(limits) as bound:
        hosts = {*LOOPBACK, limits.host, *limits.hosts} if is_loopback(limits.host) else None
        app = make_app(reasoner, limits=limits, key=key, hosts=hosts, max_pixels=max_pixels)
        try:
            await app.warm()
            allow_open_files(1 << 16)  # an idle client takes one each
            server = DrainingServer(app, limits)
            signals.act = lambda: server.drain(app, limits.drain_s)
            ready(f"http://{in_url(limits.host)}:{bound.getsockname()[1]}")
            await server.serve(sockets=[bound])
        finally:
            await app.aclose()


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
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=round(limits.drain_s) + LAST_WORDS_S,
    )
