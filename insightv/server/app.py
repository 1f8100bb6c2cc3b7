"""The routes of the server.

app = make_app(Reasoner.load("runs/charts"), key=os.environ["INSIGHTV_API_KEY"])     # any ASGI server takes it
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import ExitStack, aclosing
from functools import partial
from importlib.resources import files
from traceback import clear_frames
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from insightv.config.sections import ServeSection
from insightv.errors import ModelError
from insightv.events import AnswerDone, PathText, StepStarted
from insightv.inputs.images import DEFAULT_LIMITS
from insightv.reasoner.reasoner import Reasoner
from insightv.records import Answer, Question
from insightv.server.errors import ApiError, api_error
from insightv.server.fairness import client_of
from insightv.server.guard import CLIENT_GONE, Guard
from insightv.server.openapi import describe
from insightv.server.request import MODELS, Asked, no_model, read_request
from insightv.server.response import DONE, Shapes, about, finish_of
from insightv.server.service import Service, Visit
from insightv.server.streaming import ClientGone, EventStream, unless_gone

__all__ = ["make_app"]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}


class Routes:
    """The handlers, one method each."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._started = int(time.time())

    async def chat(self, request: Request) -> ASGIApp:
        """POST /v1/chat/completions."""
        began = time.monotonic()
        stop = self._service.stop
        with ExitStack() as held:
            visit = held.enter_context(self._service.visit(client_of(request.scope)))
            asked = read_request(await stop.unless(self._body(request, visit)), self._service.limits)
            visit.holds(asked.size)
            if not asked.stream:
                return _json(await unless_gone(request.receive, stop.unless(self._whole(asked, visit, began))))
            question = await unless_gone(request.receive, stop.unless(self._service.question(asked, visit)))
            return EventStream(self._events(asked, question, began), self._service.limits.send_s, held.pop_all())

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        return _json({"object": "list", "data": [self._model(name) for name in MODELS]})

    async def one_model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        name = request.path_params["name"]
        if name not in MODELS:
            raise no_model()
        return _json(self._model(name))

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._started, "owned_by": "insightv"}

    async def healthz(self, request: Request) -> Response:
        """GET /healthz: 200 where all engines can be asked, else 503."""
        trouble = await self._service.trouble()
        if trouble:
            return _json({"status": "failing", "reason": trouble}, 503)
        return _json({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(self._service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        return _json(describe())

    async def page(self, name: str, kind: str, request: Request) -> Response:
        """GET / and what it is made of."""
        headers = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
        return Response((files("insightv.server") / "page" / name).read_bytes(), media_type=kind, headers=headers)

    async def _body(self, request: Request, visit: Visit) -> bytearray:
        limits = self._service.limits
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "not_json", "the body must be sent as Content-Type: application/json")
        too_large = ApiError(413, "body_too_large", f"the body is larger than {limits.max_body_bytes} bytes")
        length = int(request.headers.get("content-length") or 0)
        if length > limits.max_body_bytes:
            raise too_large
        self._service.bytes.room(visit.client, length)
        body = bytearray()
        try:
            async with asyncio.timeout(limits.body_s):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > limits.max_body_bytes:
                        raise too_large
                    visit.grow(len(chunk))
                    body += chunk
        except TimeoutError:
            text = f"the body did not arrive within {limits.body_s:g} s"
            raise ApiError(408, "body_too_slow", text) from None
        return body

    async def _whole(self, asked: Asked, visit: Visit, began: float) -> dict[str, Any]:
        shapes = Shapes(asked.model)
        question = await self._service.question(asked, visit)
        try:
            answer = await self._service.reasoner(asked.model).aanswer((), question, **_how(asked))
        except ModelError as error:
            self._service.unanswered(asked.model, error)
            if finish_of(error) is None:
                raise
            return shapes.unfinished(error)
        seconds = time.monotonic() - began
        self._service.answered(asked.model, answer, seconds)
        return shapes.whole(answer, seconds)

    async def _events(self, asked: Asked, question: Question, began: float) -> AsyncGenerator[bytes, None]:
        shapes, told, stepped = Shapes(asked.model), self._service.reasoner(asked.model), False
        yield shapes.opening()
        try:
            async with aclosing(told.astream((), question, **_how(asked))) as events:
                while event := await self._service.stop.unless(anext(events, None)):
                    if isinstance(event, AnswerDone):
                        yield self._last(asked, shapes, event.answer, began)
                    elif not isinstance(event, PathText):
                        if isinstance(event, StepStarted) and not stepped:
                            stepped = True
                            self._service.metrics.time("first_step", time.monotonic() - began)
                        yield shapes.piece(event)
        except Exception as error:  # the stream has begun, so it has to say itself how it ends
            yield self._ending(asked, shapes, error)

    def _last(self, asked: Asked, shapes: Shapes, answer: Answer, began: float) -> bytes:
        seconds = time.monotonic() - began
        self._service.answered(asked.model, answer, seconds)
        last = shapes.ending("stop", {}, about(answer, seconds))
        if asked.include_usage:
            last += shapes.usage(answer)
        return last + DONE

    def _ending(self, asked: Asked, shapes: Shapes, error: Exception) -> bytes:
        if isinstance(error, ModelError):
            self._service.unanswered(asked.model, error)
            if finish := finish_of(error):
                return shapes.ending(finish, {}, None) + (shapes.usage(error) if asked.include_usage else b"") + DONE
        fault = api_error(error)
        self._service.metrics.count("errors", code=fault.code)
        return b"data: " + orjson.dumps(fault.body) + b"\n\n" + DONE


def _json(form: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(orjson.dumps(form), status, headers=headers, media_type="application/json")


def _how(asked: Asked) -> dict[str, Any]:
    options = asked.options.model_copy(update={"deadline_s": max(0.001, asked.left_s)})
    return {"seed": asked.seed, "options": options, "paths": asked.paths, "show": asked.show}


def _shaped(service: Service, handler: Callable[[Request], Awaitable[ASGIApp]]) -> Any:
    """The handler, with its errors in the right shape."""

    async def handle(request: Request) -> ASGIApp:
        try:
            return await handler(request)
        except (ClientGone, ClientDisconnect):
            return Response(status_code=CLIENT_GONE)  # nobody gets it, but middleware around this wants one
        except Exception as error:  # whatever it was, the client gets an answer in the right shape
            reply = _refusal(service, api_error(error))
            _let_go(error)
            return reply

    return handle


def _let_go(error: BaseException | None) -> None:
    """Empty the frames that an error came through: a task keeps its error, and that the frames with all they hold.

    Python's collector would find them, but not before many a request of megabytes has been refused.
    """
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__context__


def _refusal(service: Service, fault: ApiError) -> Response:
    service.metrics.count("errors", code=fault.code)
    return _json(fault.body, fault.status, fault.headers)


def _refusals(service: Service) -> Callable[[Request, Exception], Awaitable[Response]]:
    """What Starlette refuses by itself (an unknown route, a method that a route does not know), in the right shape."""

    async def told(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        code = {404: "not_found", 405: "method_not_allowed"}.get(status, "refused")
        text = {404: "there is no such route", 405: "this route does not know this method"}.get(status, "refused")
        return _refusal(service, ApiError(status, code, text, headers=dict(getattr(error, "headers", None) or {})))

    return told


def make_app(
    reasoner: Reasoner,
    *,
    limits: ServeSection | None = None,
    key: str | None = None,
    hosts: Collection[str] | None = None,
    max_pixels: int = DEFAULT_LIMITS.max_pixels,
) -> Guard:
    """The server as an ASGI application; it can be mounted into another one.

    Args:
        reasoner: answers; it stays its owner's to close.
        limits: the `[serve]` table.
        key: asked of every request; None: of none.
        hosts: names under which the server may be reached; None: any.
        max_pixels: the size that pictures are scaled down to.
    """
    service = Service(reasoner, limits or ServeSection(), max_pixels=max_pixels)
    routes = Routes(service)

    def route(path: str, handler: Callable[[Request], Awaitable[ASGIApp]], method: str = "GET") -> Route:
        return Route(path, _shaped(service, handler), methods=[method])

    app = Starlette(
        routes=[
            *[route(path, partial(routes.page, *what)) for path, what in _PAGE.items()],
            route("/healthz", routes.healthz),
            route("/metrics", routes.metrics),
            route("/openapi.json", routes.openapi),
            route("/v1/models", routes.models),
            route("/v1/models/{name}", routes.one_model),
            route("/v1/chat/completions", routes.chat, "POST"),
        ],
        exception_handlers={HTTPException: _refusals(service)},
    )
    app.router.redirect_slashes = False
    return Guard(app, service, key=key, hosts=hosts)
