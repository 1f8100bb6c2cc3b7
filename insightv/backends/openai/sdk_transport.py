"""A client of the `openai` package as a Transport: its own way of signing in and of reaching the server.

The reply is read as bytes, so the SDK neither parses nor retries, and one classifier judges all replies. How
redirects and proxies are treated is the client's own affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2
import openai
import orjson

from insightv.backends.openai.address import Address
from insightv.backends.openai.http import BrokenReply, CutReply, Incoming, NoConnection, Transport, UnreadableReply
from insightv.errors import ConfigError, KeyRefused
from insightv.records import RESERVED

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_OWN = RESERVED | {"temperature", "top_p", "max_tokens"}
"""Fields that `create` has parameters for; the others go into its extra_body."""


def address_of(client: AsyncOpenAI) -> Address:
    """Where a client goes, for texts and limits; its key, so that no text shows it."""
    url = urlsplit(str(client.base_url))
    userinfo, _, host = url.netloc.rpartition("@")
    secrets = (client.api_key, userinfo, userinfo.partition(":")[2])
    return Address(f"{url.scheme}://{host}{url.path}".rstrip("/"), {}, tuple(filter(None, secrets)))


class SdkTransport(Transport):
    """Sends what `wire` has written through `client.chat.completions.create`. The client stays its owner's to close."""

    def __init__(self, client: AsyncOpenAI, *, max_reply_bytes: int) -> None:
        self._completions = client.with_options(max_retries=0).chat.completions
        self._max_reply_bytes = max_reply_bytes
        self._loop: asyncio.AbstractEventLoop | None = None

    @asynccontextmanager
    async def open(self, url: str, headers: Mapping[str, str], body: Sequence[bytes]) -> AsyncIterator[Incoming]:
        """See `Transport.open`; the client has its own URL and headers."""
        self._keep_to_its_loop()
        fields: dict[str, Any] = orjson.loads(b"".join(body))
        extra = {name: fields.pop(name) for name in list(fields) if name not in _OWN}
        try:
            async with self._completions.with_streaming_response.create(**fields, extra_body=extra or None) as response:
                yield Incoming(response.status_code, response.headers, self._capped(response.iter_bytes()))
        except openai.APIStatusError as error:
            answer = error.response
            incoming = Incoming(answer.status_code, answer.headers, _at_once(answer.content[: self._max_reply_bytes]))
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            text = f"the connection broke ({type(cause).__name__})"
            if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
                raise NoConnection(text) from None
            raise BrokenReply(text) from None
        except openai.OpenAIError as error:
            kind = type(error).__name__
            raise KeyRefused(f"the client handed in cannot send ({kind}); check how it signs in") from None
        except httpx2.HTTPError as error:
            raise BrokenReply(f"the connection broke ({type(error).__name__})") from None
        else:
            return
        yield incoming

    def _keep_to_its_loop(self) -> None:
        """Refuse another event loop than that of the first call: the connections that a client keeps belong to one."""
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if loop is not self._loop:
            raise ConfigError(
                "the client handed in was used in another event loop, where its connections are; make a client, and a "
                "model of it, for each loop (asyncio.run makes one each time, blocking methods share one of their own)"
            )

    async def _capped(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        seen, head = 0, b""
        try:
            async for chunk in chunks:
                seen += len(chunk)
                head = head or chunk[:8192]
                if seen > self._max_reply_bytes:
                    text = f"the reply is larger than max_reply_bytes = {self._max_reply_bytes}"
                    raise UnreadableReply(text, head=head)
                yield chunk
        except httpx2.HTTPError as error:
            if not seen:
                raise
            raise CutReply(f"the reply was cut ({type(error).__name__})", head=head) from None


async def _at_once(body: bytes) -> AsyncIterator[bytes]:
    yield body
