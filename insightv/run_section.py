"""The `[run]` table of the configuration: how a run is carried out. Nothing in it changes results."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from insightv.train_section import Section


class Price(Section):
    """US dollars for a million tokens; cached prompt tokens cost `cached`, or `prompt` where it is not given."""

    prompt: float = Field(ge=0, allow_inf_nan=False)
    completion: float = Field(ge=0, allow_inf_nan=False)
    cached: float | None = Field(default=None, ge=0, allow_inf_nan=False)


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CrewSection(Section):
    """Workers of any engine: each is a process that holds all models of the run.

    Workers whose models are not ready within `start_s` seconds are not waited for. After `restarts` losses in a row
    without a reply the run stops.
    """

    start_s: float = Field(default=1800, gt=0, allow_inf_nan=False)
    restarts: int = Field(default=4, ge=0, le=1000)


class ProcessSection(CrewSection):
    """`[run.process]`: the `workers` of `engine = "process"`, on this machine."""

    workers: int = Field(default=1, ge=1, le=1000)


class RaySection(CrewSection):
    """`[run.ray]`: the workers of `engine = "ray"`.

    `address` is host:port of the cluster (None: RAY_ADDRESS, or the cluster of this machine). `actors` is the number of
    workers; None is one per GPU share where `gpus` is not 0, else one per node. Each takes `cpus`, `gpus` and
    `resources` (Ray's custom ones, by name) of one node. Workers that have no place are not waited for.
    """

    address: str | None = None
    actors: int | None = Field(default=None, ge=1, le=10_000)
    cpus: Amount = 1
    gpus: Amount = 0
    resources: dict[str, Amount] = Field(default_factory=dict)


class RunSection(Section):
    """`[run]`: how a run is carried out; nothing here changes results.

    `engine` says where models are held: in this process, by processes of their own on this machine, or by workers of a
    Ray cluster. `deadline_s` bounds one model call with its tries and waits, and one call of a plugin's scorer. Budgets
    count failed tries too and hold across resumes. `prices` is by model name (provider/model). `proxy` "environment"
    reaches model servers through the proxies that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY name; a model's own
    `proxy` wins.
    """

    engine: Literal["local", "process", "ray"] = "local"
    concurrency: int = Field(default=64, ge=1, le=10_000)
    deadline_s: float = Field(default=600, gt=0, allow_inf_nan=False)
    grace_s: float = Field(default=20, ge=0, le=3600, allow_inf_nan=False)
    max_requests: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    proxy: Literal["none", "environment"] = "none"
    prices: dict[str, Price] = Field(default_factory=dict)
    process: ProcessSection = ProcessSection()
    ray: RaySection = RaySection()
