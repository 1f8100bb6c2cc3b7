"""A fake Batch API over the fake model server: the files and batches endpoints, with jobs that end as a test says.

with FakeBatchServer(Settings(), Jobs(hold=True)) as server:
    ... openai("fake", base_url=server.base_url, mode="batch") ...
    server.jobs.hold = False                       # the jobs that are out come to their end
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.servers.fake_openai import FakeModel, FakeServer, Settings


@dataclass
class Jobs:
    """How jobs go. `hold`: none ends. `ends`: how the jobs end in order of creation, "completed" for the rest.

    "expired" and "cancelled" jobs have answers for half of their rows. `row_errors`: status codes of the first rows of
    the first job. `failures`: the errors of a "failed" job. `lost_replies`: creations whose reply never arrives.
    `busy`: polls that are answered 503. `odd`: bodies that requests of a kind (upload, create, list, poll, download)
    get with status 200 before they get what is right; "drip" never ends. `park_s`: a Retry-After of all polls.
    """

    hold: bool = False
    ends: list[str] = field(default_factory=list)
    row_errors: list[int] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    lost_replies: int = 0
    busy: int = 0
    odd: dict[str, list[bytes]] = field(default_factory=dict)
    park_s: int = 0
    made: list[dict[str, Any]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)


class FakeBatches(FakeModel):
    """The application with the endpoints of the Batch API."""

    def __init__(self, settings: Settings, jobs: Jobs) -> None:
        super().__init__(settings)
        self.jobs = jobs
        self._files: dict[str, bytes] = {}

    def app(self) -> web.Application:
        app = super().app()
        app.middlewares.append(self._oddly)
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{id}/content", self._content)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{id}", self._retrieve)
        return app

    @web.middleware
    async def _oddly(self, request: web.Request, handler: Any) -> web.StreamResponse:
        parts = request.path.split("/")[2:]
        names = {("POST", "files"): "upload", ("POST", "batches"): "create", ("GET", "files"): "download"}
        kind = names.get((request.method, parts[0]), "poll" if len(parts) > 1 else "list")
        if not self.jobs.odd.get(kind):
            found: web.StreamResponse = await handler(request)
            return found
        body = self.jobs.odd[kind].pop(0)
        if kind == "create":
            await handler(request)  # the job is made; its maker does not learn of it
        if body != b"drip":
            encoded = {"Content-Encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
            return web.Response(body=body, headers=encoded)
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.2)

    async def _upload(self, request: web.Request) -> web.Response:
        self.jobs.asked["upload"] += 1
        form = await request.post()
        assert form["purpose"] == "batch"
        upload = form["file"]
        assert isinstance(upload, web.FileField)
        name = f"file-{len(self._files)}"
        self._files[name] = upload.file.read()
        size = len(self._files[name])
        return web.json_response(
            {"id": name, "object": "file", "bytes": size, "created_at": 0, "filename": "f", "purpose": "batch"}
        )

    async def _content(self, request: web.Request) -> web.Response:
        self.jobs.asked["download"] += 1
        return web.Response(body=self._files[request.match_info["id"]])

    async def _create(self, request: web.Request) -> web.Response:
        if self._locked(request):
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        form = await request.json()
        lines = [orjson.loads(line) for line in self._files[form["input_file_id"]].splitlines()]
        number = len(self.jobs.made)
        job = {
            "id": f"batch-{number}",
            "object": "batch",
            "endpoint": form["endpoint"],
            "input_file_id": form["input_file_id"],
            "completion_window": form["completion_window"],
            "created_at": int(time.time()),
            "metadata": form.get("metadata"),
            "status": "in_progress",
            "lines": lines,
            "end": self.jobs.ends[number] if number < len(self.jobs.ends) else "completed",
        }
        self.jobs.made.append(job)
        if self.jobs.lost_replies:
            self.jobs.lost_replies -= 1
            assert request.transport is not None
            request.transport.abort()
        return self._shown(job)

    async def _list(self, _: web.Request) -> web.Response:
        self.jobs.asked["list"] += 1
        data = [_public(job) for job in reversed(self.jobs.made)]
        return web.json_response({"object": "list", "data": data, "has_more": False})

    async def _retrieve(self, request: web.Request) -> web.Response:
        self.jobs.asked["poll"] += 1
        if self.jobs.park_s:
            return web.json_response({"error": {}}, status=429, headers={"Retry-After": str(self.jobs.park_s)})
        if self.jobs.busy:
            self.jobs.busy -= 1
            return web.json_response({"error": {"message": "busy"}}, status=503)
        found = [job for job in self.jobs.made if job["id"] == request.match_info["id"]]
        if not found:
            return web.json_response({"error": {"message": "no such batch"}}, status=404)
        if found[0]["status"] == "in_progress" and not self.jobs.hold:
            self.end(found[0])
        return self._shown(found[0])

    def end(self, job: dict[str, Any]) -> None:
        job["status"] = job["end"]
        if job["end"] == "failed":
            job["errors"] = {"object": "list", "data": self.jobs.failures}
            return
        lines = job["lines"]
        half = len(lines) if job["end"] == "completed" else len(lines) // 2
        errors = self.jobs.row_errors if job is self.jobs.made[0] else []
        good, bad = [], []
        for place, line in enumerate(lines):
            if place < len(errors):
                body: Any = {"error": {"message": f"scripted {errors[place]}"}}
                bad.append(self._row(line, {"status_code": errors[place], "body": body}, None))
            elif place < half:
                good.append(self._row(line, {"status_code": 200, "body": self._answer(line)}, None))
            else:
                bad.append(self._row(line, None, {"code": f"batch_{job['end']}", "message": "out of time"}))
        for name, rows in (("output_file_id", good), ("error_file_id", bad)):
            if rows:
                job[name] = f"{job['id']}-{name}"
                self._files[job[name]] = b"".join(orjson.dumps(row) + b"\n" for row in reversed(rows))

    def _row(self, line: dict[str, Any], response: Any, error: Any) -> dict[str, Any]:
        return {
            "id": f"row-{line['custom_id'][:8]}",
            "custom_id": line["custom_id"],
            "response": response,
            "error": error,
        }

    def _answer(self, line: dict[str, Any]) -> dict[str, Any]:
        number = len(self.log)
        reading = self._book.read(orjson.dumps(line["body"]), number)
        entry: dict[str, Any] = {"number": number, "fault": None, **self._line(reading)}
        form, entry["said"] = self._form(reading, number)
        self.log.append(entry)
        return form

    def _shown(self, job: dict[str, Any]) -> web.Response:
        return web.json_response(_public(job))


def _public(job: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in job.items() if key not in ("lines", "end")}


class FakeBatchServer(FakeServer):
    """The server on a thread of its own."""

    def __init__(self, settings: Settings | None = None, jobs: Jobs | None = None) -> None:
        super().__init__(settings)
        self.jobs = jobs or Jobs()
        self.model = self._batches = FakeBatches(settings or Settings(), self.jobs)

    def end_jobs(self) -> None:
        """Bring every job that is out to its end, while nobody polls."""
        for job in self.jobs.made:
            if job["status"] == "in_progress":
                self._batches.end(job)
