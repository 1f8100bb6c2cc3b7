"""Models that send their calls out as jobs, which may take a day, and where such a job is kept meanwhile."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from insightv.interfaces import ChatModel


@dataclass(frozen=True, slots=True)
class JobEntry:
    """The job that a call was last sent with: our tag, when it was planned (Unix time), and the service's id.

    `job` is None where the process ended between planning the job and keeping its id. `tries` counts how often the call
    was sent, this job included.
    """

    tag: str
    planned_at: float
    job: str | None
    tries: int


class JobLedger(ABC):
    """Keeps which call went out with which job; what it has returned from survives the process."""

    @abstractmethod
    async def plan(self, tag: str, calls: Mapping[bytes, int]) -> None:
        """Keep that the calls (by key, with the number of their try) are about to be sent as the job `tag`.

        Raises:
            StopRun: nothing more may be sent.
        """

    @abstractmethod
    async def sent(self, tag: str, job: str) -> None:
        """Keep the service's id of a job."""

    @abstractmethod
    async def entry(self, key: bytes) -> JobEntry | None:
        """The job that a call was last planned with."""


class MemoryLedger(JobLedger):
    """Keeps jobs as long as the process lives, for a model outside a run."""

    def __init__(self) -> None:
        self._jobs: dict[str, tuple[float, str | None]] = {}
        self._calls: dict[bytes, tuple[str, int]] = {}

    async def plan(self, tag: str, calls: Mapping[bytes, int]) -> None:
        """See `JobLedger.plan`."""
        self._jobs[tag] = (time.time(), None)
        self._calls |= {key: (tag, tries) for key, tries in calls.items()}

    async def sent(self, tag: str, job: str) -> None:
        """See `JobLedger.sent`."""
        self._jobs[tag] = (self._jobs[tag][0], job)

    async def entry(self, key: bytes) -> JobEntry | None:
        """See `JobLedger.entry`."""
        if key not in self._calls:
            return None
        tag, tries = self._calls[key]
        return JobEntry(tag, *self._jobs[tag], tries)


class JobModel(ChatModel):
    """A ChatModel that gathers the calls under way into jobs.

    Its calls take no slot of a run, since they wait together, and cost `price_share` of the listed price.
    """

    price_share: float = 0.5

    @abstractmethod
    def keep_jobs(self, ledger: JobLedger) -> None:
        """Keep jobs in a run's ledger from now on; a call that is asked again finds its job there."""
