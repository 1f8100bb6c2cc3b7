"""The cluster of `executor = "ray"`: the one module that imports Ray. Workers are actors; `pool` says who is asked.

Nothing is taken from Ray's own restarts and retries: a worker that is lost is replaced, and its calls are asked again,
by the pool, which knows the journal's rules.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from typing import Any, cast

import ray
from ray import exceptions

from insightv.config.sections import RaySection
from insightv.errors import ConfigError, ModelError, StopRun
from insightv.plugin_guard import error_text, stored
from insightv.records import Usage
from insightv.runs.workers.protocol import Lost, WorkerHandle
from insightv.runs.workers.worker import Worker

_REACH_S, _JOIN_S = 5.0, 60.0
_LOST = (
    exceptions.RayActorError,
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.OutOfMemoryError,
    exceptions.ObjectLostError,
    exceptions.RpcError,
)
_CURE = "start one with `ray start --head`, and on other nodes `ray start --address=HOST:6379`, or set run.ray.address"


class RayCluster:
    """A Ray cluster, with the actors of one run. `concurrency` is the most calls that are in flight at once."""

    table = "run.ray"
    cure = "other jobs may hold what the cluster has, or the models take longer to load; see `ray status`"
    blames_calls = False
    close_s = 30.0

    def __init__(self, section: RaySection, concurrency: int) -> None:
        self._section = section
        self._concurrency = concurrency
        self._ours = False
        self._wanted = {"CPU": section.cpus, "GPU": section.gpus, **section.resources}

    def connect(self) -> tuple[int, int]:
        """See `crew_members.Cluster.connect`. A cluster that the process has connected to already is used as it is."""
        if not ray.is_initialized():
            self._join()
            self._ours = True
        rooms = [_room(node["Resources"], self._wanted) for node in ray.nodes() if node["Alive"]]
        one_each = sum(room >= 1 for room in rooms)
        if not one_each:
            wanted = ", ".join(f"{name} = {amount:g}" for name, amount in self._wanted.items() if amount)
            has = "; ".join(_shown(node["Resources"]) for node in ray.nodes() if node["Alive"])
            raise ConfigError(
                f"no node of the Ray cluster has room for a worker with {wanted}; the nodes have: {has}. "
                "Lower run.ray.cpus, gpus or resources, or add a node"
            )
        shares = self._section.gpus > 0
        size = self._section.actors or (int(sum(rooms)) if shares else one_each)
        return size, int(min(size, sum(rooms)))

    def start(self) -> WorkerHandle:
        """See `crew_members.Cluster.start`."""
        actor = ray.remote(Worker).options(
            num_cpus=self._section.cpus,
            num_gpus=self._section.gpus,
            resources=self._section.resources,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=self._concurrency + 8,
            scheduling_strategy="SPREAD",
        )
        return RayWorker(actor.remote())

    def close(self) -> None:
        """See `crew_members.Cluster.close`."""
        if self._ours:
            ray.shutdown()

    def _join(self) -> None:
        address = self._section.address or os.environ.get("RAY_ADDRESS", "").strip() or "auto"
        if address != "auto":
            _reach(address)
        logging.getLogger("ray").setLevel(logging.ERROR)
        faults: list[Exception] = []
        # Ray tries for a quarter of an hour where something listens that is no cluster, and nothing can stop it.
        joining = threading.Thread(target=_init, args=(address, faults), daemon=True)
        joining.start()
        joining.join(_JOIN_S)
        if joining.is_alive():
            raise ConfigError(f"no Ray cluster answers at {address!r} within {_JOIN_S:.0f} s; {_CURE}")
        if faults:
            what = "there is no" if isinstance(faults[0], ConnectionError) else "this process cannot join the"
            raise ConfigError(f"{what} Ray cluster at {address!r} ({_first(faults[0])}); {_CURE}") from faults[0]


def _init(address: str, faults: list[Exception]) -> None:
    try:
        ray.init(address=address, configure_logging=False, log_to_driver=False)
    # Ray raises RuntimeError, ValueError and more where versions, addresses or passwords do not fit.
    except Exception as error:
        faults.append(error)


class RayWorker:
    """One actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def call(self, method: str, *args: Any) -> Any:
        """See `crew_members.WorkerHandle.call`."""
        reference = getattr(self._actor, method).remote(*args)
        try:
            return await reference
        except asyncio.CancelledError:
            ray.cancel(reference)
            raise
        except exceptions.RayTaskError as error:
            cause = cast(BaseException, error.cause)
            raise ModelError("backend_error", error_text(cause), usage=Usage(requests=1)) from None
        except _LOST as error:
            text = _first(error)
            if "creation task" in str(error):
                raise ConfigError(f"a Ray worker cannot begin; is insightv installed on every node? {text}") from None
            raise Lost(text) from None
        except exceptions.LocalRayletDiedError as error:
            raise StopRun(f"this machine has left the Ray cluster ({_first(error)}); resume when it is back") from None

    def dismiss(self) -> None:
        """See `crew_members.WorkerHandle.dismiss`."""
        if ray.is_initialized():
            ray.kill(self._actor)


def _room(has: dict[str, float], wanted: dict[str, float]) -> float:
    """How many workers a node has room for, whatever runs there now; infinite where they take nothing."""
    return min((has.get(name, 0) // amount for name, amount in wanted.items() if amount), default=float("inf"))


def _shown(has: dict[str, float]) -> str:
    own = {name: amount for name, amount in has.items() if not name.startswith(("node:", "object_store"))}
    return ", ".join(f"{name} = {amount:g}" for name, amount in sorted(own.items()) if name != "memory") or "nothing"


def _reach(address: str) -> None:
    """Look whether something listens at host:port, which Ray itself would find out in minutes."""
    host, colon, port = address.rpartition(":")
    if "//" in address or not (colon and host and port.isdecimal()):
        raise ConfigError(
            f"run.ray.address (or RAY_ADDRESS) is {address!r}; it is host:port of the cluster, as in '10.0.0.1:6379', "
            "and the run itself is started on a node of the cluster"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"there is no Ray cluster at {address!r} ({error}); {_CURE}") from error


def _first(error: BaseException) -> str:
    """The first line of a text of Ray's, which may run to pages."""
    return next((line for line in stored(str(error)).splitlines() if line.strip()), type(error).__name__)[:300]
