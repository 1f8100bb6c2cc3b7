"""The gate: who goes first, how many at once, and how it closes."""

from __future__ import annotations

import asyncio

import pytest

from insightv.backends.retry_pause import NotTriedAgain, no_more_tries, pause
from insightv.errors import StopRun
from insightv.runs.limiter import CallLimiter, StopSwitch


def test_the_oldest_question_goes_first_and_never_more_than_the_limit() -> None:
    async def run() -> tuple[list[int], int]:
        gate, order, inside, most = CallLimiter(2), [], 0, 0

        async def call(priority: int) -> None:
            nonlocal inside, most
            await gate.acquire(priority)
            inside += 1
            most = max(most, inside)
            order.append(priority)
            await asyncio.sleep(0.001)
            inside -= 1
            gate.release()

        await asyncio.gather(*(call(priority) for priority in (9, 8, 7, 3, 5, 3, 1)))
        return order, most

    order, most = asyncio.run(run())
    assert order == [9, 8, 1, 3, 3, 5, 7]  # two slots were free at first
    assert most == 2


def test_a_cancelled_waiter_loses_no_slot() -> None:
    async def run() -> None:
        gate = CallLimiter(1)
        await gate.acquire(0)
        for _ in range(50):
            waiter = asyncio.create_task(gate.acquire(1))
            await asyncio.sleep(0)
            gate.release()  # hands the slot to the waiter ...
            waiter.cancel()  # ... which is cancelled in the same pass
            with pytest.raises(asyncio.CancelledError):
                await waiter
            await asyncio.wait_for(gate.acquire(2), 1)
        gate.release()

    asyncio.run(run())


def test_a_closed_gate_refuses_who_waits_and_who_comes() -> None:
    async def run() -> None:
        gate = CallLimiter(1)
        await gate.acquire(0)
        waiter = asyncio.create_task(gate.acquire(1))
        await asyncio.sleep(0)
        gate.close(RuntimeError("over"))
        with pytest.raises(RuntimeError, match="over"):
            await waiter
        with pytest.raises(RuntimeError, match="over"):
            await gate.acquire(2)

    asyncio.run(run())


def test_work_ends_when_the_switch_is_thrown_and_its_error_throws_it() -> None:
    async def run() -> None:
        told = StopSwitch(CallLimiter(1))
        asyncio.get_running_loop().call_later(0.01, told.stop, StopRun("told to"))
        await asyncio.wait_for(told.heard_by(asyncio.sleep(100)), 10)
        assert str(told.error) == "told to"

        async def fails() -> None:
            raise ValueError("a fault of our own")

        failed = StopSwitch(CallLimiter(1))
        await failed.heard_by(fails())
        assert str(failed.error) == "a fault of our own"

    asyncio.run(run())


def test_a_pause_ends_when_no_more_tries_are_wanted() -> None:
    async def run() -> None:
        await pause(0.01)  # nobody can be told to stop
        stop = asyncio.Event()
        no_more_tries.set(stop)
        await pause(0.01)
        waiting = asyncio.create_task(pause(100))
        await asyncio.sleep(0)
        stop.set()
        with pytest.raises(NotTriedAgain):
            await asyncio.wait_for(waiting, 10)
        with pytest.raises(NotTriedAgain):
            await pause(0)

    asyncio.run(run())
