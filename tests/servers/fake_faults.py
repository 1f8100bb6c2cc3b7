"""The ways in which the fake server can fail, by name.

A fault is written "kind" or "kind=value": "500", "429=3" (Retry-After: 3), "reset", "drip=0.1", "gzip_bomb=200" (MB).
A header can be named: "429:retry-after-ms=2500"; in a value, {date+4} is the HTTP date four seconds from now.
"""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from email.utils import formatdate
from functools import cache
from typing import Any

import orjson
from aiohttp import web

MB = 1024 * 1024
_DATE = re.compile(r"\{date([+-]\d+)\}")
_LAST_S = 3600.0


async def fail(request: web.Request, fault: str, reply: dict[str, Any]) -> web.StreamResponse:
    """Answer `request` with the fault instead of, or in the garb of, the reply."""
    name, _, value = fault.partition("=")
    kind, _, header = name.partition(":")
    value = _DATE.sub(lambda found: formatdate(time.time() + int(found[1]), usegmt=True), value)
    if kind.isdigit():
        headers = {header or "Retry-After": value} if value else {}
        key = request.headers.get("Authorization", "")
        error = {"message": f"scripted {kind}; you sent {key}", "type": "scripted"}
        return web.json_response({"error": error}, status=int(kind), headers=headers)
    if kind in _ERRORS:
        status, error = _ERRORS[kind]
        return web.json_response({"error": error}, status=status)
    if kind in _BODIES:
        return web.Response(body=_BODIES[kind], content_type="text/html" if kind == "html" else "application/json")
    if kind in _CHANGES:
        return web.json_response(_CHANGES[kind](reply))
    if kind == "redirect":
        return web.Response(status=307, headers={"Location": value or "http://127.0.0.1:9/v1/chat/completions"})
    return await _broken(request, kind, value, orjson.dumps(reply))


async def _broken(request: web.Request, kind: str, value: str, whole: bytes) -> web.StreamResponse:
    if kind == "reset":
        _abort(request)
        return web.Response()
    if kind == "hang":
        await asyncio.sleep(float(value or _LAST_S))
        return web.Response(body=whole, content_type="application/json")
    if kind == "cut_json":
        return web.Response(body=whole[: len(whole) // 2], content_type="application/json")
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    if kind in ("cut", "cut_chunk"):
        if kind == "cut":
            response.content_length = len(whole)
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(whole[: len(whole) // 2])
        _abort(request)
    elif kind == "drip":
        response.content_length = len(whole)
        await response.prepare(request)
        for place in range(len(whole)):
            await response.write(whole[place : place + 1])
            await asyncio.sleep(float(value or 1))
    elif kind == "huge":
        await response.prepare(request)
        for _ in range(int(value or 500)):
            await response.write(b" " * MB)
    elif kind == "gzip_bomb":
        response.headers["Content-Encoding"] = "gzip"
        await response.prepare(request)
        await response.write(_bomb(int(value or 1000)))
    elif kind == "gzip":
        response.headers["Content-Encoding"] = "gzip"
        await response.prepare(request)
        await response.write(zlib.compress(whole, wbits=31))
    elif kind == "gzip_cut":
        response.headers["Content-Encoding"] = "gzip"
        await response.prepare(request)
        await response.write(zlib.compress(whole, wbits=31)[:-12])
    elif kind == "gzip_junk":
        response.headers["Content-Encoding"] = "gzip"
        await response.prepare(request)
        await response.write(zlib.compress(whole, wbits=31))
        for _ in range(int(value or 100)):
            await response.write(b"\0" * MB)
    else:
        raise web.HTTPInternalServerError(text=f"unknown fault {kind!r}")
    return response


@cache
def _bomb(megabytes: int) -> bytes:
    deflate = zlib.compressobj(wbits=31)
    first = deflate.compress(b" " * MB) + deflate.flush(zlib.Z_FULL_FLUSH)
    # After a full flush nothing refers back, so the next block may stand any number of times.
    return first + (deflate.compress(b" " * MB) + deflate.flush(zlib.Z_FULL_FLUSH)) * (megabytes - 1)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _with_choice(**changes: Any) -> Any:
    def change(reply: dict[str, Any]) -> dict[str, Any]:
        choices = []
        for choice in reply["choices"]:
            message = {**choice["message"], **{key: value for key, value in changes.items() if key != "finish_reason"}}
            choices.append({**choice, "message": message, "finish_reason": changes.get("finish_reason", "stop")})
        return {**reply, "choices": choices}

    return change


_ERRORS: dict[str, tuple[int, dict[str, str]]] = {
    "quota": (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}),
    "too_long": (400, {"message": "This model's maximum context length is 4096 tokens", "code": "x"}),
    "filter403": (403, {"message": "flagged", "code": "content_policy_violation"}),
    "filter400": (400, {"message": "filtered", "code": "content_filter"}),
}
_BODIES = {
    "html": b"<html><body>Bad gateway</body></html>",
    "bad_utf8": b'{"choices":[{"message":{"content":"\xff\xfe"},"finish_reason":"stop"}]}',
    "surrogate": b'{"choices":[{"message":{"content":"a\\ud800b"},"finish_reason":"stop"}]}',
    "not_json": b"{'choices': 1}",
    "blank": b"   ",
    "array": b"[]",
    "nested": b'{"choices":' + b"[" * 100_000,
    "crowded": b'{"choices":[' + b"{}," * 2_700_000 + b"{}]}",
    "nan": b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":NaN}}',
    "empty_choices": b'{"choices":[]}',
    "null_choices": b'{"choices":null}',
    "no_message": b'{"choices":[{"finish_reason":"stop"}]}',
    "error200": b'{"error":{"message":"overloaded","code":500}}',
    "long_line": b'{"choices":[{"message":{"content":"' + b"a" * (50 * MB) + b'"}}]}',
}
_CHANGES = {
    "null_content": _with_choice(content=None),
    "list_content": _with_choice(content=["a"]),
    "abort": _with_choice(finish_reason="abort"),
    "length": _with_choice(finish_reason="length"),
    "length_null": _with_choice(content=None, finish_reason="length"),
    "refusal": _with_choice(content=None, refusal="I cannot help with that"),
    "content_filter": _with_choice(content=None, finish_reason="content_filter"),
    "no_usage": lambda reply: {**reply, "usage": None},
    "odd_usage": lambda reply: {**reply, "usage": {"prompt_tokens": "9", "completion_tokens": -1}},
}
