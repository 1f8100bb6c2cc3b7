"""The blocking doors where other code meets them: threads that come at once, forks, collected streams, interrupts."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from textwrap import dedent

import pytest

from insightv.concurrency import all_of, blocking, blocking_stream, in_time

BEGIN = """
import asyncio, os, threading
from insightv.concurrency import blocking

async def loop():
    return id(asyncio.get_running_loop())
"""


def program(text: str) -> str:
    """What a program writes; in a process of its own no blocking call has been made yet."""
    ran = [sys.executable, "-c", BEGIN + dedent(text)]
    return subprocess.run(ran, check=True, capture_output=True, text=True, timeout=60).stdout


def test_threads_that_come_at_once_share_one_loop() -> None:
    text = """
    loops, gate = set(), threading.Barrier(32)

    def call():
        gate.wait()
        loops.add(blocking(loop()))

    threads = [threading.Thread(target=call) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(len(loops))
    """
    assert program(text) == "1\n"


def test_a_forked_process_has_a_loop_of_its_own() -> None:
    text = """
    mine = blocking(loop())
    child = os.fork()
    if child == 0:
        os._exit(0 if blocking(loop()) != mine else 1)
    print(os.waitpid(child, 0)[1])
    """
    assert program(text) == "0\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("jobs", [1, 2])
def test_what_ends_a_program_is_the_callers_and_leaves_the_loop(error: type[BaseException], jobs: int) -> None:
    async def leave() -> None:
        raise error

    async def all_leave() -> None:
        await all_of([leave() for _ in range(jobs)])

    with pytest.raises(error):
        blocking(all_leave() if jobs > 1 else leave())
    assert blocking(asyncio.sleep(0, "goes on")) == "goes on"


def test_a_stream_that_is_collected_within_the_loop_ends() -> None:
    ended: list[bool] = []

    async def pieces() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.sleep(100)
        finally:
            ended.append(True)

    async def collect() -> None:
        gc.collect()
        while not ended:
            await asyncio.sleep(0.01)

    stream = blocking_stream(pieces())
    assert next(stream) == 1
    cycle: list[object] = [stream]
    cycle.append(cycle)
    gc.disable()
    try:
        del stream, cycle
        blocking(collect())
    finally:
        gc.enable()


def test_work_that_does_not_end_is_left_and_ended() -> None:
    ended = threading.Event()

    def endless() -> None:
        try:
            while True:
                sum(range(10))
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        in_time(endless, 0.2)
    assert ended.wait(10)
    assert in_time(lambda: 3, 10) == 3
    with pytest.raises(ZeroDivisionError):
        in_time(lambda: 1 // 0, 10)
