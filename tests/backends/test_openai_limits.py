"""Replies that are made to hurt: memory stays small, and the next call goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from insightv import redact
from tests.servers.fake_openai import FakeServer, Settings

SCRIPT = """
import asyncio, sys
from insightv.backends.openai import retry
from insightv.backends.openai.factory import openai
from insightv.errors import ModelError
from insightv.records import Message, Sampling
from tests.memory import peak_kb

retry.MALFORMED_TRIES = 2
retry.LONGEST_BACKOFF_S = 0.01

async def main():
    model = openai("fake", base_url=sys.argv[1])
    say = [Message(role="user", content="Hello [truth=7]")]
    await model.chat(say, Sampling())
    for fault in sys.argv[2:]:
        before = peak_kb()
        try:
            await model.chat(say, Sampling())
            print("answered")
        except ModelError as error:
            growth = (peak_kb() - before) // 1024
            print(fault, error.code, growth, (await model.chat(say, Sampling()))[0].text)
    await model.aclose()

asyncio.run(main())
"""
ROOT = Path(__file__).parents[2]
FAULTS = ("nested", "crowded", "long_line", "huge=500", "gzip_bomb=1000")


def test_bombs_cost_little_memory_and_are_coded() -> None:
    script = ["ok"]
    for fault in FAULTS:
        script += [fault, fault, "ok"]
    with FakeServer(Settings(script=tuple(script))) as server:
        command = [sys.executable, "-c", SCRIPT, server.base_url, *FAULTS]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    assert [(fault, code, after) for fault, code, _, after in lines] == [
        (fault, "malformed", "The answer is 7.") for fault in FAULTS
    ]
    assert all(int(growth_mb) < 100 for _, _, growth_mb, _ in lines), done.stdout


@pytest.mark.parametrize(
    "text", [" " * 100_000, "0x" * 50_000, "://" * 30_000, "bearer " * 10_000, "data:" * 20_000, "\x1b[" * 50_000]
)
def test_redaction_takes_no_time_on_hostile_texts(text: str) -> None:
    import time

    began = time.process_time()
    redact.Redactor(["sk-canary-123456"]).clean_bytes(text.encode() * 10, 2048)
    assert time.process_time() - began < 0.5
