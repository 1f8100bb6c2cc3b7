"""Replies that are made to hurt: memory stays small, and the next call goes on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from insightv.backends import redact
from tests.servers.fake_openai import FakeServer, Settings

SCRIPT = """
import asyncio, resource, sys
from insightv.backends import tries
from insightv.backends.openai import openai
from insightv.errors import ModelError
from insightv.records import Message, Sampling

tries.MALFORMED_TRIES = 2
tries.LONGEST_BACKOFF_S = 0.01

async def main():
    model = openai("fake", base_url=sys.argv[1])
    say = [Message(role="user", content="Hello [truth=7]")]
    await model.chat(say, Sampling())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        await model.chat(say, Sampling())
        print("answered")
    except ModelError as error:
        print(error.code, len(error.kept))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    print((await model.chat(say, Sampling()))[0].text)
    await model.aclose()

asyncio.run(main())
"""


@pytest.mark.parametrize("fault", ["gzip_bomb=1000", "huge=500", "long_line", "nested"])
def test_bombs_cost_little_memory_and_are_coded(fault: str) -> None:
    with FakeServer(Settings(script=("ok", fault, fault))) as server:
        command = [sys.executable, "-c", SCRIPT, server.base_url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    outcome, growth_mb, after = done.stdout.splitlines()
    assert outcome.startswith("malformed ")
    assert int(growth_mb) < 100
    assert after == "The answer is 7."


@pytest.mark.parametrize(
    "text", [" " * 100_000, "0x" * 50_000, "://" * 30_000, "bearer " * 10_000, "data:" * 20_000, "\x1b[" * 50_000]
)
def test_redaction_takes_no_time_on_hostile_texts(text: str) -> None:
    import time

    began = time.process_time()
    redact.Redactor(["sk-canary-123456"]).clean_bytes(text.encode() * 10, 2048)
    assert time.process_time() - began < 0.5
