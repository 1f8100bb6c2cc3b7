"""What the routes do, apart from HTTP: who may begin, which agents answer to a model's name, how healthy they are."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from insightv.agents.fencing import FencedQuestion
from insightv.assess.agreement import conclusion
from insightv.config.sections import ServeSection
from insightv.errors import InsightvError, ModelError
from insightv.inputs.image_error import ImageLimits
from insightv.interfaces import ReasoningAgent, SummaryAgent
from insightv.reasoner.reasoner import Reasoner
from insightv.records import Answer, Question, ReasoningPath
from insightv.redact import Redactor
from insightv.server.errors import ApiError, unavailable
from insightv.server.fairness import Bytes, Turns
from insightv.server.metrics import Metrics
from insightv.server.pictures import PictureReader
from insightv.server.request import BOTH, REASON, SUMMARY, Asked
from insightv.server.response import paths_of
from insightv.server.shutdown import Stop

log = logging.getLogger("insightv.server")

HEALTH_S, HEALTH_KEPT_S = 5.0, 2.0
"""The time that a look at the engines may take, and for how long its outcome holds."""
_SLOW = f"an engine did not answer within {HEALTH_S:g} s"
"""It may be one that is still being loaded, so it is worth waiting for."""


class NoReasoning(ReasoningAgent):
    """Reasons nothing; so the summary agent answers from the image."""

    async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
        """A path without steps."""
        return ReasoningPath(question_id=question.id, index=0, status="ok", seed=seed)


class Conclusion(SummaryAgent):
    """Answers with what the path comes to by itself."""

    async def summarize(self, question: Question, path: ReasoningPath) -> Answer:
        """The path's conclusion.

        Raises:
            ModelError: the path has none.
        """
        text = conclusion(path)
        if text is None:
            code = "truncated" if path.status == "rejected" and path.steps else path.code or "no_conclusion"
            raise ModelError(code, f"the path comes to no conclusion: {path.detail}")
        return Answer(text=text)


class Visit:
    """One request of a client: the bytes that it holds, and its place among the questions at work."""

    def __init__(self, client: str, service: Service) -> None:
        self.client = client
        self._service = service
        self._bytes = 0
        self._placed = False

    def grow(self, count: int) -> None:
        """Hold more bytes.

        Raises:
            ApiError: 429, there is no room for them.
        """
        self._service.bytes.room(self.client, count)
        self.holds(self._bytes + count)

    def holds(self, count: int) -> None:
        """Hold this many bytes, instead of what it held before."""
        shared = self._service.bytes
        shared.change(self.client, count - self._bytes)
        self._bytes, self._service.metrics.bytes_in_flight = count, shared.held

    async def take_place(self, left_s: float) -> None:
        """Take a place among the questions at work; wait for it where the client has less than its share.

        Raises:
            ApiError: 429, there is none.
        """
        places, limits = self._service.places, self._service.limits
        if not places.may_wait(self.client):
            raise self._busy()
        try:
            async with asyncio.timeout(min(left_s, limits.wait_s)):
                await places.take(self.client)
        except TimeoutError:
            raise self._busy() from None
        self._placed = True
        self._service.metrics.in_flight += 1

    def leave(self) -> None:
        """Let go of it all."""
        self.holds(0)
        if self._placed:
            self._placed = False
            self._service.metrics.in_flight -= 1
            self._service.places.leave(self.client)

    def _busy(self) -> ApiError:
        most = self._service.limits.concurrency
        wait_s = max(1, math.ceil(min(60.0, self._service.metrics.mean("answer") or 1.0)))
        text = f"{most} questions are at work, which is the limit; come back later"
        return ApiError(429, "busy", text, headers={"Retry-After": str(wait_s)})


class Service:
    """The two agents behind the routes. The reasoner stays its owner's, who closes it after `aclose`."""

    def __init__(self, reasoner: Reasoner, limits: ServeSection, *, max_pixels: int) -> None:
        self.limits = limits
        self.metrics: Metrics = Metrics()
        self.stop: Stop = Stop()
        self.places: Turns = Turns(limits.concurrency)
        self.bytes: Bytes = Bytes(limits.bytes_in_flight, limits.bytes_of_one_client)
        self.pictures: PictureReader = PictureReader(
            ImageLimits(
                max_bytes=limits.max_image_bytes, max_source_pixels=limits.max_image_pixels, max_pixels=max_pixels
            ),
            limits.image_hosts,
        )
        self._reasoner = reasoner
        self._by_name = {
            BOTH: reasoner,
            REASON: Reasoner(reasoner.reasoning_agent, Conclusion(), scorer=reasoner.scorer),
            SUMMARY: Reasoner(NoReasoning(), reasoner.summary_agent),
        }
        self._health: tuple[float, str] | None = None
        self._looking = asyncio.Lock()

    def reasoner(self, model: str) -> Reasoner:
        """The agents behind a model's name."""
        return self._by_name[model]

    @contextmanager
    def visit(self, client: str) -> Iterator[Visit]:
        """What one request of a client holds of what all share; it is let go at the end."""
        visit = Visit(client, self)
        try:
            yield visit
        finally:
            visit.leave()

    async def question(self, asked: Asked, visit: Visit) -> Question:
        """The question, with its pictures opened, once it has a place and the engines can be asked.

        Raises:
            ImageError: a picture cannot be used.
            ApiError: 422, the best of several paths is asked for and nothing here can tell which it is; 429, there is
                no place; 503, an engine cannot be asked, so that a client need not wait for the deadline to hear of
                it; 504, that took longer than the deadline.
        """
        if asked.show == "best" and asked.paths > 1 and self._reasoner.scorer is None:
            text = 'there is no scorer here to choose the best path; ask for "show": "all"'
            raise ApiError(422, "no_scorer", text, param="insightv.show")
        await visit.take_place(asked.left_s)
        try:
            async with asyncio.timeout(asked.left_s) as limit:
                pictures = await self.pictures.open_all(asked.images, visit.client)
                visit.holds(len(asked.text) + sum(len(picture.data) for picture in pictures))
                trouble = await self.trouble()
        except TimeoutError:
            if limit.expired():
                text = "the images were not opened in time, or the engines not found to be there"
                raise ApiError(504, "timeout", text) from None
            raise
        if trouble and trouble != _SLOW:
            raise unavailable(trouble)
        kind = FencedQuestion if asked.turns else Question
        return kind(id="asked", question=asked.text, images=pictures)

    def answered(self, model: str, answer: Answer, seconds: float) -> None:
        """Count an answer. One that both agents have a part in shows that their engines can be asked."""
        if model == BOTH and any(path.status == "ok" for path in paths_of(answer)):
            self._health = (time.monotonic(), "")
        self._spent(model, answer)
        self.metrics.time("answer", seconds)
        if model == BOTH:
            outcome = {True: "followed", False: "overruled", None: "unknown"}[answer.followed]
            self.metrics.count("answers", path=outcome)

    def unanswered(self, model: str, error: ModelError) -> None:
        """Count what a question cost that has no answer."""
        self._spent(model, error)

    def _spent(self, model: str, ended: Answer | ModelError) -> None:
        for kind in ("prompt", "cached", "completion"):
            self.metrics.count("tokens", getattr(ended.usage, f"{kind}_tokens"), kind=kind)
        for path in () if model == SUMMARY else paths_of(ended):
            self.metrics.count("paths", status=path.status)

    async def trouble(self) -> str:
        """What is wrong with the engines; "" where all of them can be asked. Looked at once in a while."""
        async with self._looking:
            if self._health is None or time.monotonic() - self._health[0] > HEALTH_KEPT_S:
                self._health = (time.monotonic(), await self._look())
            return self._health[1]

    async def warm(self) -> None:
        """See that the engines can be asked, and start what the first question would wait for.

        Raises:
            ConfigError: an engine cannot be asked.
        """
        await self._reasoner.acheck()
        await self.pictures.warm()

    async def aclose(self) -> None:
        """End the processes that decode images."""
        await self.pictures.aclose()

    async def _look(self) -> str:
        try:
            async with asyncio.timeout(HEALTH_S):
                await self._reasoner.acheck()
        except TimeoutError:
            return _SLOW
        except InsightvError as error:
            log.warning("health: %s", Redactor().clean(str(error)))
            return "an engine cannot be asked; the server's log says why"
        return ""
