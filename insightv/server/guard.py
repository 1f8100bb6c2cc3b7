"""What stands before every route: key, host and origin, and the log line. Plain ASGI."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import secrets
import time
from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson

from insightv.server.errors import ApiError
from insightv.server.service import Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

access = logging.getLogger("insightv.access")
MODELS = "/v1/models"
ROUTES = ("/", "/page.js", "/page.css", "/healthz", "/metrics", "/openapi.json", MODELS, "/v1/chat/completions")
CLIENT_GONE = 499
"""Stands in log and metrics for a client that went away before it was answered, as in nginx."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Guard:
    """Lets a request through, or answers it with an error.

    `key` is asked for on every route where it is given: as a bearer token, or as the password of basic authentication,
    which browsers ask people for. `hosts` are the names under which the server is reached (None: not looked at), so
    that a page elsewhere whose name leads here reaches nothing. A page of another origin is refused.
    """

    def __init__(self, app: ASGIApp, service: Service, *, key: str | None, hosts: Collection[str] | None) -> None:
        self._app = app
        self._service = service
        self._key = key.encode() if key else None
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._metrics = service.metrics

    async def warm(self) -> None:
        """See `Service.warm`."""
        await self._service.warm()

    def stop(self) -> None:
        """Answer the questions that are at work with an error; see `Stop`."""
        self._service.stop.now()

    async def aclose(self) -> None:
        """End what the server has started; the reasoner stays its owner's to close."""
        await self._service.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, request_id, status = time.monotonic(), secrets.token_hex(8), 0
        extra = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
        unread = _has_body(scope)

        async def receiving() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body"))
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                closing = [(b"connection", b"close")] if unread and _one_at_a_time(scope) else []
                message["headers"] = [*message.get("headers", ()), *extra, *closing]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receiving, sending)
        except ApiError as error:
            self._metrics.count("errors", code=error.code)
            await _send_error(error, sending)
        except asyncio.CancelledError:
            if not self._service.stop.called:  # else: a client that takes nothing; uvicorn would call it a fault
                raise
        finally:
            self._note(scope, status, time.monotonic() - began, request_id)

    def _check(self, scope: Scope) -> None:
        headers = {name: value for name, value in scope["headers"] if name in (b"host", b"authorization")}
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts is not None and _name(host) not in self._hosts:
            raise ApiError(403, "wrong_host", "the server is not reached under this name; see serve.hosts")
        origins = (value.decode("latin-1") for name, value in scope["headers"] if name == b"origin")
        if any(origin.partition("://")[2] != host for origin in origins):
            raise ApiError(403, "wrong_origin", "pages of other origins cannot use this server")
        if self._key is not None and not hmac.compare_digest(_given(headers.get(b"authorization", b"")), self._key):
            ask = {"WWW-Authenticate": 'Basic realm="insightv", charset="UTF-8"'}
            raise ApiError(
                401, "invalid_api_key", "the key is missing or wrong; send it as a bearer token", headers=ask
            )

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        path = MODELS if path.startswith(f"{MODELS}/") else path
        route = path if path in ROUTES else "other"
        status = status or CLIENT_GONE
        self._metrics.count("requests", route=route, status=str(status))
        client = (scope.get("client") or ("-",))[0]
        access.info("%s %s %s %s %d %.1f ms", request_id, client, scope["method"], route, status, seconds * 1000)


def _has_body(scope: Scope) -> bool:
    named = {name: value for name, value in scope["headers"] if name in (b"content-length", b"transfer-encoding")}
    return b"transfer-encoding" in named or named.get(b"content-length", b"0") != b"0"


def _one_at_a_time(scope: Scope) -> bool:
    """Whether a connection has to be closed to be rid of a body that nobody reads: that of HTTP/1."""
    return str(scope.get("http_version", "1.1")).startswith("1")


def _given(header: bytes) -> bytes:
    kind, _, value = header.partition(b" ")
    if kind.lower() == b"bearer":
        return value.strip()
    if kind.lower() == b"basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


async def _send_error(error: ApiError, send: Send) -> None:
    body = orjson.dumps(error.body)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
