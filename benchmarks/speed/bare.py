"""A bare aiohttp client: the same requests in the same order of importance, with nothing kept and nothing checked.

Bodies are spliced from bytes that were made once. Prints one line of JSON: processor and clock seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from benchmarks.speed import conversations as talk
from benchmarks.speed.work import PATHS
from insightv.agents.step_schema import FINAL_SCHEMA, STEP_SCHEMA
from insightv.assess.answer import ANSWER_VERDICT
from insightv.assess.path_prompt import PATH_SCORES
from insightv.records import Schema
from insightv.runs.limiter import CallLimiter

_HEADERS = {"Content-Type": "application/json"}


def _tail(schema: Schema, n: int = 1) -> bytes:
    form = {"name": schema.name, "schema": schema.definition, "strict": True}
    fields: dict[str, Any] = {"model": "speed", "temperature": 0.7, "top_p": 0.95, "max_tokens": 1024, "seed": 1}
    if n > 1:
        fields["n"] = n
    return b"]," + orjson.dumps({**fields, "response_format": {"type": "json_schema", "json_schema": form}})[1:]


_HEAD = b'{"messages":['
_SYSTEM, _NEXT, _FINAL = orjson.dumps(talk.SYSTEM), orjson.dumps(talk.NEXT), orjson.dumps(talk.FINAL)
_CHECK_SYSTEM, _GRADE_SYSTEM = orjson.dumps(talk.CHECK_SYSTEM), orjson.dumps(talk.GRADE_SYSTEM)
_STEP, _FIRST, _ANSWER = _tail(STEP_SCHEMA), _tail(STEP_SCHEMA, PATHS), _tail(FINAL_SCHEMA)
_VERDICT, _SCORES = _tail(ANSWER_VERDICT), _tail(PATH_SCORES)


class Bare:
    """The client."""

    def __init__(self, session: aiohttp.ClientSession, url: str, folder: Path, concurrency: int) -> None:
        self._session, self._url, self._folder = session, f"{url}/chat/completions", folder
        self.gate = CallLimiter(concurrency)

    async def _ask(self, item: int, parts: list[bytes], held: bool = False) -> list[str]:
        if not held:
            await self.gate.acquire(item)
        try:
            async with self._session.post(self._url, data=b"".join(parts), headers=_HEADERS) as response:
                form = orjson.loads(await response.read())
            return [choice["message"]["content"] for choice in form["choices"]]
        finally:
            self.gate.release()

    async def question(self, item: int, image: str) -> None:
        """All calls of one question; a slot is held for the first one."""
        data = await asyncio.to_thread((self._folder / image).read_bytes)
        url = b"data:image/jpeg;base64," + base64.b64encode(data)
        shown = b'{"role":"user","content":[{"type":"image_url","image_url":{"url":"' + url + b'"}},'
        asked = shown + orjson.dumps(talk.asked(item)["content"][1]) + b"]}"
        opening = [_HEAD, _SYSTEM, b",", asked]
        firsts = await self._ask(item, [*opening, _FIRST], held=True)
        paths = await asyncio.gather(*(self._path(item, list(opening), text) for text in firsts))
        answers = dict.fromkeys(given for _, given in paths)
        verdicts = await asyncio.gather(*(self._check(item, given) for given in answers))
        right = dict(zip(answers, verdicts, strict=True))
        kept = [path for path in paths if right[path[1]]]
        if kept:
            text = orjson.dumps({"type": "text", "text": talk.grade(item, kept)}) + b"]}"
            await self._ask(item, [_HEAD, _GRADE_SYSTEM, b",", shown, text, _SCORES])

    async def _path(self, item: int, parts: list[bytes], text: str) -> tuple[list[tuple[str, str]], str]:
        steps = []
        while True:
            form = orjson.loads(text)
            steps.append((form["title"], form["content"]))
            parts += [b",", orjson.dumps(talk.said(text)), b","]
            if form["action"] == "summary":
                break
            parts.append(_NEXT)
            [text] = await self._ask(item, [*parts, _STEP])
        [text] = await self._ask(item, [*parts, _FINAL, _ANSWER])
        return steps, orjson.loads(text)["answer"]

    async def _check(self, item: int, given: str) -> bool:
        parts = [_HEAD, _CHECK_SYSTEM, b",", orjson.dumps(talk.check(item, given)), _VERDICT]
        [text] = await self._ask(item, parts)
        return bool(orjson.loads(text)["correct"])


async def _main(options: argparse.Namespace) -> dict[str, float]:
    images = [json.loads(line)["images"][0] for line in options.questions.read_text("utf-8").splitlines()]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        bare = Bare(session, options.base_url, options.questions.parent, options.concurrency)
        began, processor = time.perf_counter(), time.process_time()
        tasks = set()
        for item, image in enumerate(images):
            await bare.gate.acquire(item)
            task = asyncio.create_task(bare.question(item, image))
            tasks.add(task)
            task.add_done_callback(lambda done: (tasks.discard(done), done.result()))
        await asyncio.gather(*tasks)
        return {"seconds": time.perf_counter() - began, "processor_s": time.process_time() - processor}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=96)
    parser.add_argument("--cpu", type=int)
    arguments = parser.parse_args()
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})
    json.dump(asyncio.run(_main(arguments)), sys.stdout)
