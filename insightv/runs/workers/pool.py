"""The workers of a run, on this machine or on several: who is asked, and what happens where one is lost.

A question's calls go to one worker for as long as it lives, since its prefix cache knows them. A call that was in
flight at a worker that is lost is asked again at another; the journal above sees one call. Each place of the pool is
filled again and again, as far as there is room. How workers are reached is known by `ray_engine` and `process_engine`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from insightv.config.factories import ModelSpec
from insightv.config.sections import WorkerSection
from insightv.errors import ConfigError, InsightvError, ModelError, StopRun
from insightv.interfaces import ChatModel
from insightv.records import Completion, Usage
from insightv.runs.workers.pooled_model import PooledModel
from insightv.runs.workers.protocol import Cluster, Lost, Member, WorkerHandle
from insightv.runs.workers.worker import About, Fault, about_here

log = logging.getLogger("insightv.runs.workers.pool")

CRASHES, CRASHES_ALONE = 3, 2
"""A call that was in flight at as many losses is not asked again: it may be what kills the workers.

The second holds where the call was alone with the worker at the last of them.
"""
HOMES = 16384
"""Questions whose worker is remembered."""
LENT = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HF_TOKEN")
"""Variables of this process that workers are given, beside those that the settings name."""
HUNG_S = 60.0
"""A worker that lets a call run for so long beyond the backend's own deadline hangs, and is given up."""
OTHERS_S = 15.0
"""A run begins when no other worker has become ready for so long; those that come later join it."""
_LONGEST_PAUSE_S, _LOOK_S = 30.0, 0.1


class WorkerPool:
    """The workers of one run."""

    def __init__(self, cluster: Cluster, section: WorkerSection) -> None:
        self._cluster = cluster
        self._section = section
        self._models: list[PooledModel] = []
        self._members: list[Member] = []
        self._homes: OrderedDict[int, Member] = OrderedDict()
        self._chains: Counter[Member] = Counter()
        self._keepers: list[asyncio.Task[None]] = []
        self._begun: asyncio.Task[None] | None = None
        self._fault: Fault | None = None
        self._changed = asyncio.Event()

    def model(self, spec: ModelSpec) -> ChatModel:
        """A model that every worker makes by the spec."""
        if self._begun is not None:
            raise InsightvError(f"{spec.name}: a model was named after the workers had begun")
        self._models.append(PooledModel(self, len(self._models), spec))
        return self._models[-1]

    async def begin(self) -> None:
        """Start the workers, and wait until their models are ready; for the slower ones not longer than `OTHERS_S`.

        Raises:
            ConfigError, MissingExtra, PluginError: there is no cluster or no room, or a worker cannot make a model.
        """
        if self._begun is None:
            self._begun = asyncio.create_task(self._begin())
        await asyncio.shield(self._begun)

    async def _begin(self) -> None:
        size, room = await asyncio.to_thread(self._cluster.connect)
        self._keepers = [asyncio.create_task(self._keep(number)) for number in range(size)]
        start_s, loop = self._section.start_s, asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(start_s) as limit:
                while len(self._members) < room and self._fault is None:
                    await self._changed.wait()
                    self._changed.clear()
                    if self._members:  # a node that has just gone still counts as room, which nobody will fill
                        limit.reschedule(min(limit.when() or 0.0, loop.time() + OTHERS_S))
        if self._fault is not None:
            raise self._fault.error()
        ready = len(self._members)
        if not ready:
            raise ConfigError(
                f"no worker was ready within {self._cluster.table}.start_s = {start_s:g} s: {self._cluster.cure}"
            )
        hosts = ", ".join(sorted({member.host for member in self._members}))
        log.info("%d workers are ready on %s", ready, hosts)
        if ready < size:
            log.warning("%d of %d workers are ready; the others join once the cluster has room", ready, size)

    async def ask(self, model: PooledModel, chain: int | None, *call: Any) -> list[Completion]:
        """The replies of a model to a call of the question `chain`.

        Raises:
            ModelError: also "worker_crash": worker after worker was lost while this call was in flight; "timeout".
            StopRun: also: no worker is left.
        """
        losses, blames = 0, self._cluster.blames_calls
        while losses < (CRASHES_ALONE if blames else CRASHES):
            member = await self._member(chain)
            async with member.turn(alone=blames and losses > 0):
                if member.lost.is_set():  # while this call waited for its turn
                    continue
                try:
                    reply = await self._asked(member, model, call)
                except Lost as loss:
                    losses += 1
                    member.answered |= blames and losses == CRASHES_ALONE  # the call was to blame, not the worker
                    self._drop(member, loss)
                    continue
            member.answered = True
            tries = Usage(requests=losses)
            if isinstance(reply, Fault):
                raise replace(reply, usage=reply.usage + tries).error()
            return [reply[0].costing(reply[0].usage + tries), *reply[1:]] if losses and reply else reply
        text = f"{losses} workers were lost one after the other while this call was in flight; see the log"
        raise ModelError("worker_crash", text, usage=Usage(requests=losses))

    async def _asked(self, member: Member, model: PooledModel, call: tuple[Any, ...]) -> list[Completion] | Fault:
        """The reply of one worker, within the call's deadline.

        Raises:
            Lost: the worker is lost, or hangs.
        """
        own, limit = model.spec.options.get("deadline_s"), model.spec.deadline_s
        if limit is None and isinstance(own, int | float):
            limit = own + HUNG_S
        try:
            async with asyncio.timeout(limit) as time_limit:
                reply: list[Completion] | Fault = await member.hand.call("chat", model.place, *call)
                return reply
        except TimeoutError:
            if not time_limit.expired():
                raise
            if model.spec.deadline_s is None:
                raise Lost(f"no reply for {limit:g} s") from None
            text = f"{model.name}: no reply within run.deadline_s = {limit} s"
            return Fault("ModelError", text, "timeout", Usage(requests=1))

    async def _member(self, chain: int | None) -> Member:
        """The worker that knows the chain, or the one with the least to do; waits until there is one."""
        ends = time.monotonic() + self._section.start_s
        while not self._members:
            if self._fault is not None:
                raise self._fault.error()
            if time.monotonic() > ends:
                raise StopRun(
                    f"every worker is lost, and no other was ready within {self._cluster.table}.start_s = "
                    f"{self._section.start_s:g} s: {self._cluster.cure}; then resume"
                )
            await asyncio.sleep(_LOOK_S)
        home = None if chain is None else self._homes.get(chain)
        if home is not None and chain is not None and not home.lost.is_set():
            self._homes.move_to_end(chain)
            return home
        best = min(self._members, key=lambda member: (member.alone, member.in_flight, self._chains[member]))
        if chain is not None:
            self._settle(chain, best)
        return best

    def _settle(self, chain: int, member: Member) -> None:
        self._homes[chain] = member
        self._chains[member] += 1
        if len(self._homes) > HOMES:
            _, left = self._homes.popitem(last=False)
            self._chains.subtract((left,) if left in self._members else ())

    async def _keep(self, number: int) -> None:
        """Keep one place of the pool filled, for as long as its workers are of use."""
        in_row = 0
        try:
            while in_row <= self._section.restarts:
                hand, member = self._cluster.start(), None
                try:
                    member = await self._ready(number, hand)
                    await self._listen(member)
                    in_row = 1 if member.answered else in_row + 1
                except Lost as loss:
                    in_row += 1
                    log.warning("worker %d was lost before it was ready: %s", number, loss)
                finally:
                    hand.dismiss()
                await asyncio.sleep(min(2.0 ** (in_row - 1) - 1, _LONGEST_PAUSE_S))
            self._give_up(number, Fault("StopRun", f"worker {number} was lost {in_row} times in a row without a reply"))
        except InsightvError as error:
            self._give_up(number, Fault.of(error))
        # Whoever waits for this worker must hear of it, whatever went wrong here.
        except Exception as error:
            log.exception("worker %d cannot be kept", number)
            self._give_up(number, Fault("InsightvError", f"worker {number}: {type(error).__name__}: {error}"))

    async def _ready(self, number: int, hand: WorkerHandle) -> Member:
        """The worker with its models made.

        Raises:
            InsightvError: they cannot be made there.
        """
        about: About = await hand.call("hello")
        here = about_here()
        if about.insightv != here.insightv:
            raise ConfigError(
                f"the worker on {about.host} has insightv {about.insightv}, and this process {here.insightv}; "
                "install the same version on every node"
            )
        specs = [model.spec for model in self._models]
        wanted = set(LENT).union(*(spec.variables for spec in specs))
        lent = {name: os.environ[name] for name in wanted if name in os.environ}
        try:
            names: list[str] | Fault = await hand.call("prepare", specs, lent, str(Path.cwd()))
            if isinstance(names, Fault):
                raise replace(names, text=f"the worker on {about.host}: {names.text}").error()
        except ModelError as error:
            raise ConfigError(f"{error}; see that what this process has installed is on every node") from error
        for model, name in zip(self._models, names, strict=True):
            model.name = name
        member = Member(number, hand, about.host)
        self._members.append(member)
        self._changed.set()
        return member

    async def _listen(self, member: Member) -> None:
        """Put what the worker logs into our log, until it is lost."""
        gone = asyncio.create_task(member.lost.wait())
        said: asyncio.Task[Any] = gone
        try:
            while not gone.done():
                said = asyncio.create_task(member.hand.call("said"))
                await asyncio.wait({said, gone}, return_when=asyncio.FIRST_COMPLETED)
                for level, name, text in said.result() if said.done() else ():
                    logging.getLogger(name).log(level, "worker %d on %s: %s", member.number, member.host, text)
        except Lost as loss:
            self._drop(member, loss)
        finally:
            gone.cancel()
            said.cancel()
            await asyncio.gather(gone, said, return_exceptions=True)

    def _drop(self, member: Member, loss: Lost) -> None:
        if member in self._members:
            self._members.remove(member)
            self._chains.pop(member, None)
            member.lose()
            text = "worker %d on %s is lost (%s); %d calls in flight are asked again, %d workers are left"
            log.warning(text, member.number, member.host, loss, member.in_flight, len(self._members))

    def _give_up(self, number: int, fault: Fault) -> None:
        """A place is not filled any more. Before the run has begun, or where it was the last one, that ends the run."""
        begun = self._begun is not None and self._begun.done()
        if not begun:
            self._fault = fault if fault.kind != "StopRun" else Fault("ConfigError", fault.text)
        else:
            log.warning("worker %d is not started again: %s", number, fault.text)
            current = asyncio.current_task()
            if all(keeper.done() for keeper in self._keepers if keeper is not current):
                self._fault = Fault("StopRun", f"no worker is left: {fault.text}; see the log, and resume the run")
        self._changed.set()

    async def aclose(self) -> None:
        """End the workers, and leave the cluster."""
        if self._begun is None:
            return
        self._begun.cancel()
        closing = [asyncio.wait_for(member.hand.call("close"), self._cluster.close_s) for member in self._members]
        try:
            await asyncio.gather(*closing, return_exceptions=True)
        finally:
            for keeper in self._keepers:
                keeper.cancel()
        await asyncio.gather(self._begun, *self._keepers, return_exceptions=True)
        await asyncio.to_thread(self._cluster.close)
