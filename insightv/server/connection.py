"""One connection: what of it is parsed in one turn of the loop, and how it parts from a client that still sends."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Any

import h11
import orjson
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from insightv.server.errors import ApiError

EVENTS = 32
"""Pieces of requests that are parsed in one turn, about half a millisecond: then it is the turn of the others."""
CRUMBS, CRUMB_BYTES = 1000, 64
"""A body may come in so many pieces of fewer bytes: a megabyte of one-byte chunks takes seconds to parse."""
LINGER_S, LINGER_BYTES = 2.0, 2**20
"""How long, and how much, a client that was refused may still send before its connection is cut."""

LAST_S = 1.0
"""How long a request that has begun to come when the server is stopped may take to come."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 in small pieces, so that a body of many small chunks keeps nobody waiting."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn: _Parser = _Parser(h11.SERVER)
        self._last = False

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        parting: Any = _Parting(transport, self._may_send_on)
        super().connection_made(parting)
        self.flow: _Flow = _Flow(self.transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if not self.transport.is_closing():
            super().data_received(data)
        elif isinstance(self.transport, _Parting):
            self.transport.drop(len(data))

    def handle_events(self) -> None:
        """Parse what has come, or the next part of it. Called by uvicorn."""
        self.conn.left = EVENTS
        super().handle_events()
        if self._last and self.cycle is not None:
            self.cycle.keep_alive = False
        if not self.conn.left and not self.flow.behind:
            self.flow.fall_behind(True)
            self.loop.call_soon(self._go_on)

    def send_400_response(self, msg: str) -> None:
        """Say in the API's shape that this is no HTTP. Called by uvicorn."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # a reply has begun, and this is not its place
            self.transport.abort()
            return
        body = orjson.dumps(ApiError(400, "invalid_http", "this is not HTTP/1.1, or comes in too many pieces").body)
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def shutdown(self) -> None:
        """Close once what is at work, or has come and is not read yet, is answered. Called by uvicorn."""
        if (self.cycle is None or self.cycle.response_complete) and self._more_has_come():
            self._last = True
            self.loop.call_later(LAST_S, super().shutdown)
        else:
            super().shutdown()

    def _more_has_come(self) -> bool:
        waiting = select.poll()
        waiting.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self.transport.is_closing() and bool(waiting.poll(0))

    def _go_on(self) -> None:
        self.flow.fall_behind(False)
        if not self.transport.is_closing():
            self.handle_events()

    def _may_send_on(self) -> bool:
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)


class _Parser(h11.Connection):
    """Says that it needs more data after so many events, and refuses a body that comes in crumbs."""

    left = EVENTS
    _crumbs = 0

    def next_event(self) -> Any:
        """See h11."""
        if not self.left:
            return h11.NEED_DATA
        self.left -= 1
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._crumbs = 0
        elif isinstance(event, h11.Data) and len(event.data) < CRUMB_BYTES:
            self._crumbs += 1
            if self._crumbs > CRUMBS:
                raise h11.RemoteProtocolError("the body comes in too many pieces")
        return event


class _Flow(FlowControl):
    """Takes no more from the client while what has come is not parsed, whatever else would have it go on."""

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self.behind = False
        self._wanted = True

    def fall_behind(self, behind: bool) -> None:
        """Say whether something that has come is not parsed."""
        self.behind = behind
        self._apply()

    def pause_reading(self) -> None:
        """See uvicorn."""
        self._wanted = False
        self._apply()

    def resume_reading(self) -> None:
        """See uvicorn."""
        self._wanted = True
        self._apply()

    def _apply(self) -> None:
        if self._wanted and not self.behind:
            super().resume_reading()
        else:
            super().pause_reading()


class _Parting:
    """A transport. When closed on a client that still sends, it says that nothing more comes, and drops what arrives.

    A socket that is closed with bytes unread resets the connection, and the client may never see why it was refused.
    """

    def __init__(self, transport: Any, may_send_on: Callable[[], bool]) -> None:
        self._transport = transport
        self._may_send_on = may_send_on
        self._dropped = 0
        self._parting = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more is taken."""
        return self._parting or bool(self._transport.is_closing())

    def close(self) -> None:
        """Send what is left, then close."""
        if self._parting or self._transport.is_closing() or not self._may_send_on():
            self._transport.close()
            return
        self._parting = True
        self._transport.write_eof()
        self._transport.resume_reading()
        asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)

    def drop(self, count: int) -> None:
        """Count bytes that came after the close."""
        self._dropped += count
        if self._dropped > LINGER_BYTES:
            self._transport.abort()
