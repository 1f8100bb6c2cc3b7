"""One model of one or more chat completions servers: requests out, replies checked, tried again where that helps.

It puts together what the files beside it know: `wire` writes requests, `http` or `sdk` carries them, `verdicts` says
what a reply means, `endpoint` says when and where to ask, `tries` whether to ask again, `sse` reads streams.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TypeVar

from insightv.backends.openai.address import LOOK_S, Address, reach_any, unreached
from insightv.backends.openai.classify import Answered, Refused, Setback, Verdict, of_failure, of_reply
from insightv.backends.openai.endpoint import Endpoint, EndpointPool, Patience, endpoint_at
from insightv.backends.openai.fit import Fit
from insightv.backends.openai.http import BrokenReply, HttpTransport, Transport, TransportFailure
from insightv.backends.openai.learned import Asked, Learned
from insightv.backends.openai.request import request_body
from insightv.backends.openai.retry import Tries
from insightv.backends.openai.sse import StreamedReply
from insightv.backends.retry_pause import NotTriedAgain
from insightv.errors import ConfigError, EndpointParked, KeyRefused, ModelError, ModelUnknown, QuotaExhausted, StopRun
from insightv.interfaces import ChatModel
from insightv.records import Completion, Message, Sampling, Schema, Usage
from insightv.redact import Redactor

MAX_REPLY_BYTES = 8 * 1024 * 1024
DEFAULT_KEY = "OPENAI_API_KEY"
"""The environment variable that holds the key where no other is named."""
Result = TypeVar("Result")


class OpenAIModel(ChatModel):
    """One model of one or more chat completions servers.

    `setbacks` counts the tries that had to be repeated, by class ("429", "html", "broken reply", ...).
    """

    def __init__(
        self,
        model: str,
        *,
        addresses: Sequence[Address],
        transport: Transport,
        fit: Fit | None = None,
        deadline_s: float = 600.0,
        idle_s: float = 120.0,
        connections: int = 1024,
        api_key_env: str = DEFAULT_KEY,
    ) -> None:
        self.name: str = f"openai/{model}"
        self.setbacks: Counter[str] = Counter()
        self._model = model
        self._transport = transport
        self._redactor = Redactor(secret for address in addresses for secret in address.secrets)
        self._learned = Learned(self.name, fit or Fit(), self.setbacks)
        self._deadline_s = deadline_s
        self._idle_s = idle_s
        self._connections = connections
        self._addresses = {address.url: address for address in addresses}
        self._pool = EndpointPool([endpoint_at(address.url) for address in addresses])
        self._cures: dict[type[StopRun], str] = {
            KeyRefused: f"check the key in the environment variable {api_key_env}, then resume",
            QuotaExhausted: "the account needs more quota; then resume",
            ModelUnknown: f"check the name {model!r} against the server's /models, and that base_url ends in /v1",
        }
        self._stopped: tuple[type[StopRun], str] | None = None
        self._slots: asyncio.Semaphore | None = None
        self._slots_loop: asyncio.AbstractEventLoop | None = None

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        """See `ChatModel.chat`. The first completion's usage counts all tries of the call, failed ones too."""
        asked = Asked(messages, sampling, schema, n, self._learned.fit)
        chain, tries = self._chain(messages), Tries(Patience(self._deadline_s), self.setbacks)
        while True:
            body = self._body(asked)
            async with self._turn(chain, tries) as endpoint:
                sent_at = time.monotonic()
                said = await self._ask(endpoint, body, asked.drawn, tries)
                verdict = self._learned.verdict(said, asked)
                if verdict is None:
                    tries.spent(Usage())
                    continue
                completions = self._settle(verdict, endpoint, sent_at, tries)
            if completions is not None:
                return completions
            await tries.pause(endpoint)

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, *, schema: Schema | None = None
    ) -> AsyncIterator[str | Completion]:
        """See `ChatModel.stream`. After the first piece nothing is asked again: a broken stream is a ModelError."""
        asked = Asked(messages, sampling, schema, 1, self._learned.fit, stream=True)
        chain, tries = self._chain(messages), Tries(Patience(self._deadline_s), self.setbacks)
        while True:
            body = self._body(asked)
            async with self._turn(chain, tries) as endpoint:
                sent_at, streamed = time.monotonic(), StreamedReply(self._redactor)
                try:
                    async with aclosing(self._pieces(endpoint, body, streamed, tries)) as pieces:
                        async for piece in pieces:
                            yield piece
                    said = streamed.verdict()
                except TransportFailure as failure:
                    said = of_failure(failure, self._redactor)
                verdict = self._learned.verdict(said, asked)
                if verdict is None:
                    tries.spent(Usage())
                    continue
                completions = self._settle(verdict, endpoint, sent_at, tries)
            if completions is not None:
                if completions[0].text and not streamed.begun:
                    yield completions[0].text
                yield completions[0]
                return
            if streamed.begun and isinstance(verdict, Setback):
                raise tries.error("malformed", f"the stream broke off: {verdict.text}")
            await tries.pause(endpoint)

    async def aclose(self) -> None:
        """Close the connections; those of a client handed in stay its owner's."""
        await self._transport.aclose()

    def _body(self, asked: Asked) -> list[bytes]:
        return request_body(
            self._model,
            asked.messages,
            asked.sampling,
            n=asked.drawn,
            schema=asked.schema,
            fit=asked.fit,
            stream=asked.stream,
        )

    async def _ask(self, endpoint: Endpoint, body: Sequence[bytes], n: int, tries: Tries) -> Verdict:
        try:
            async with asyncio.timeout(tries.patience.left_s):
                reply = await self._transport.post(endpoint.url, self._addresses[endpoint.label].headers, body)
        except TimeoutError:
            stood_s = tries.patience.stood_still()
            if stood_s:
                # The reply may have come meanwhile: nothing is known of the server, so the call is made again.
                text = f"this process stood still for {stood_s:.0f} s or more while a reply was awaited"
                return Setback("stood still", "timeout", text, "up")
            tries.spent(Usage())
        except TransportFailure as failure:
            return of_failure(failure, self._redactor)
        else:
            return of_reply(reply, n, self._redactor)
        raise tries.out_of_time(endpoint.label)

    async def _pieces(
        self, endpoint: Endpoint, body: Sequence[bytes], streamed: StreamedReply, tries: Tries
    ) -> AsyncGenerator[str, None]:
        """The pieces of a stream as they come: the first within the deadline, the others within the idle time too."""
        async with AsyncExitStack() as stack:
            opening = self._transport.open(endpoint.url, self._addresses[endpoint.label].headers, body)
            incoming = await self._in_time(stack.enter_async_context(opening), endpoint, tries)
            streamed.opened(incoming)
            chunks, limit_s = incoming.chunks, float("inf")
            while not streamed.ended:
                chunk = await self._in_time(anext(chunks, None), endpoint, tries, limit_s)
                if chunk is None:
                    return
                limit_s = self._idle_s
                for piece in streamed.feed(chunk):
                    yield piece

    async def _in_time(
        self, work: Awaitable[Result], endpoint: Endpoint, tries: Tries, limit_s: float = float("inf")
    ) -> Result:
        left_s = tries.patience.left_s
        try:
            async with asyncio.timeout(min(limit_s, left_s)):
                return await work
        except TimeoutError:
            if limit_s < left_s:
                raise BrokenReply(f"nothing came for {limit_s:g} s") from None
            tries.spent(Usage())
        raise tries.out_of_time(endpoint.label)

    @asynccontextmanager
    async def _turn(self, chain: bytes, tries: Tries) -> AsyncIterator[Endpoint]:
        """A turn at an endpoint. Waiting is over before a connection is taken, so none is used against a limit."""
        asked_at = time.monotonic()
        async with self._slots_here():
            tries.patience.excuse(time.monotonic() - asked_at)
            self._check_stopped(tries)
            try:
                endpoint = await self._pool.admit(chain, tries.patience)
            except (EndpointParked, NotTriedAgain, ModelError) as error:
                error.usage = tries.usage
                raise
            try:
                self._check_stopped(tries)
                yield endpoint
            except StopRun as stop:  # the transport's too
                stop.usage = tries.usage
                raise
            finally:
                endpoint.leave()

    def _settle(self, verdict: Verdict, endpoint: Endpoint, sent_at: float, tries: Tries) -> list[Completion] | None:
        """The completions; None where the request may go out again.

        Raises:
            ModelError, StopRun: it may not.
        """
        if isinstance(verdict, Setback):
            tries.note(verdict, endpoint, sent_at)
            return None
        endpoint.is_up()
        if isinstance(verdict, Answered):
            tries.spent(verdict.usage)
            first, *others = verdict.completions
            return [first.costing(tries.usage), *others]
        tries.spent(verdict.usage if isinstance(verdict, Refused) else Usage())
        if isinstance(verdict, Refused):
            raise tries.error(verdict.code, f"{endpoint.label}: {verdict.text}", verdict.kept)
        self._stopped = (verdict.stop, f"{endpoint.label}: {verdict.text}; {self._cures[verdict.stop]}")
        self._check_stopped(tries)
        return None

    def _check_stopped(self, tries: Tries) -> None:
        if self._stopped is not None:
            kind, text = self._stopped
            stop = kind(text)
            stop.usage = tries.usage
            raise stop

    def _chain(self, messages: Sequence[Message]) -> bytes:
        """What the calls of one chain have in common: all up to the first message of the user."""
        if not self._pool.several:
            return b""
        first = next((place for place, message in enumerate(messages) if message.role == "user"), len(messages))
        return b"".join([message.digest for message in messages[: first + 1]])

    async def check(self) -> None:
        """See `ChatModel.check`: whether one of the servers can be asked, and none has refused to be asked again.

        A server that was not down when it was last asked need only listen; one that was must answer a GET that costs
        nothing, unless calls that wait for it know better. Whether the server behind a client of the user's own listens
        is not looked at.
        """
        if self._stopped is not None:
            raise ConfigError(self._stopped[1])
        await reach_any(self._addresses.values(), self._fault_of)

    async def _fault_of(self, address: Address) -> str | None:
        endpoint, transport = endpoint_at(address.url), self._transport
        if endpoint.known_down:
            return f"{address.url} is down ({endpoint.trouble})"
        if not isinstance(transport, HttpTransport):
            return None
        if not endpoint.down:
            return await unreached(address, transport.proxy)
        try:
            async with asyncio.timeout(LOOK_S):
                status = await transport.status(f"{address.url}/models", address.headers)
        except TimeoutError:
            return f"{address.url} did not answer within {LOOK_S:g} s"
        except TransportFailure as failure:
            return f"{address.url}: {self._redactor.clean(str(failure))}"
        return f"{address.url} answered {status}" if status >= 500 and status != 501 else None  # 501: it knows no GET

    def _slots_here(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._slots is None or self._slots_loop is not loop:
            self._slots, self._slots_loop = asyncio.Semaphore(self._connections), loop
        return self._slots
