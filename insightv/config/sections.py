"""The tables `[run]`, `[train]` and `[serve]` of the configuration."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from insightv.errors import did_you_mean
from insightv.inputs.columns import FIELDS
from insightv.inputs.image_error import ImageLimits, Opening
from insightv.inputs.layouts import NAMES, AnswerIs


class Section(BaseModel):
    """A section whose keys are all known."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class Price(Section):
    """US dollars for a million tokens; cached prompt tokens cost `cached`, or `prompt` where it is not given."""

    prompt: float = Field(ge=0, allow_inf_nan=False)
    completion: float = Field(ge=0, allow_inf_nan=False)
    cached: float | None = Field(default=None, ge=0, allow_inf_nan=False)


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class WorkerSection(Section):
    """Workers of any engine: each is a process that holds all models of the run.

    Workers whose models are not ready within `start_s` seconds are not waited for. After `restarts` losses in a row
    without a reply the run stops.
    """

    start_s: float = Field(default=1800, gt=0, allow_inf_nan=False)
    restarts: int = Field(default=4, ge=0, le=1000)


class ProcessSection(WorkerSection):
    """`[run.process]`: the `workers` of `executor = "process"`, on this machine."""

    workers: int = Field(default=1, ge=1, le=1000)


class RaySection(WorkerSection):
    """`[run.ray]`: the workers of `executor = "ray"`.

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

    `executor` says where models are held: in this process, by other processes of this machine, or by workers of a
    Ray cluster. `deadline_s` bounds one model call with its tries and waits, and one call of a plugin's scorer. Budgets
    count failed tries too and hold across resumes. `prices` is by model name (provider/model). `proxy` "environment"
    reaches model servers through the proxies that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY name; a model's own
    `proxy` wins.
    """

    executor: Literal["local", "process", "ray"] = "local"
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


_MB = 2**20


class ServeSection(Section):
    """`[serve]`: where `insightv serve` listens, and what one request may take.

    `api_key_env` names the variable with the key that clients send; on an address that is not loopback there must be
    one. `hosts` are further names under which clients reach the server, `image_hosts` those that images may be fetched
    from (none). `concurrency` is the number of questions at work; more are told to come back later, except those of a
    client that has less than its share, which wait up to `wait_s`. `max_connections` clients are let in (None: as many
    as leave descriptors for the engines). `deadline_s` bounds a question, `body_s` the arrival of its request, `send_s`
    the taking of each piece of its reply. Questions that take longer than `drain_s` when the server is asked to stop
    end with an error. All requests together hold at most `max_bytes_in_flight` (None: eight of `max_body_bytes`), and
    those of one client leave room for one body of another's. A request may ask for less than `max_paths`, `max_steps`
    (None: as the agents are set) and `max_tokens` (of both agents together), not for more. `max_text` is in characters.
    docs/serve_limits.md has the reason of each.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    api_key_env: str = "INSIGHTV_API_KEY"
    hosts: tuple[str, ...] = ()
    image_hosts: tuple[str, ...] = ()
    concurrency: int = Field(default=64, ge=1, le=10_000)
    max_connections: int | None = Field(default=None, ge=1)
    deadline_s: float = Field(default=300, gt=0, allow_inf_nan=False)
    body_s: float = Field(default=30, gt=0, allow_inf_nan=False)
    send_s: float = Field(default=30, gt=0, allow_inf_nan=False)
    drain_s: float = Field(default=30, ge=0, le=3600, allow_inf_nan=False)
    wait_s: float = Field(default=10, ge=0, le=3600, allow_inf_nan=False)
    max_body_bytes: int = Field(default=32 * _MB, ge=1024)
    max_bytes_in_flight: int | None = Field(default=None, ge=1024)
    max_images: int = Field(default=8, ge=0, le=1000)
    max_image_bytes: int = Field(default=16 * _MB, ge=1024)
    max_image_pixels: int = Field(default=40_000_000, ge=784)
    max_text: int = Field(default=32_000, ge=1)
    max_paths: int = Field(default=4, ge=1, le=100)
    max_steps: int | None = Field(default=None, ge=1)
    max_tokens: int = Field(default=16_384, ge=2)

    @property
    def bytes_in_flight(self) -> int:
        """What all requests together may hold."""
        return 8 * self.max_body_bytes if self.max_bytes_in_flight is None else self.max_bytes_in_flight

    @property
    def bytes_of_one_client(self) -> int:
        """What the requests of one client may hold: all but one body, or one body where there is not room for two."""
        return max(self.max_body_bytes, self.bytes_in_flight - self.max_body_bytes)

    @model_validator(mode="after")
    def _room_for_one(self) -> ServeSection:
        if self.bytes_in_flight < self.max_body_bytes:
            raise ValueError(
                f"max_bytes_in_flight = {self.bytes_in_flight} is below max_body_bytes = {self.max_body_bytes}, so a "
                "body of that size would never be taken; raise the one or lower the other"
            )
        return self


Recipe = Literal["multi-agent", "dpo", "iterative-dpo", "external", "direct", "multi-turn", "summary-only"]


class RoundPaths(Section):
    """`[train.generation]`: the fresh paths that a policy writes, in a round and for the summary agent.

    `questions` of the run's, drawn anew each time (None: all), `paths` for each, drawn at `temperature`.
    """

    questions: int | None = Field(default=None, ge=1)
    paths: int = Field(default=8, ge=2, le=1000)
    temperature: float = Field(default=0.8, ge=0, le=2, allow_inf_nan=False)


class RoundPairs(Section):
    """`[train.pairs]`: which two paths of a question make a pair (see `insightv.train.data.pairs.PairRule`).

    `length_slack` = 0.5 lets lengths differ as they will.
    """

    margin: float = Field(default=20, gt=0, le=100, allow_inf_nan=False)
    per_question: int = Field(default=2, ge=1)
    length_slack: float = Field(default=0.02, ge=0, le=0.5, allow_inf_nan=False)


class TrainSection(BaseModel):
    """`[train]`.

    `base` is the model that every agent is trained from: a model directory, an id of the hub, or an embedded model
    ("tiny/base", "tiny/teacher"); `revision` is the commit, tag or branch of one of the hub (None: its newest commit).
    `recipe` says what is trained; `rounds` the number of rounds of "iterative-dpo". `heldout` is a questions file that
    nothing is trained on: every stage is measured on it, and a round that makes the reasoning agent worse on it (exact
    paired test, p below `rollback_p`; 0: never) is rolled back. `external` is the file of preference data of
    "external". `summary_paths` fresh paths per question of the last reasoning agent are added to the summary set.
    `child` = false trains in this process. `trainer` is a registered PreferenceTrainer. Policies are asked through the
    `backend` with `backend_options`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    base: str | None = None
    revision: str | None = None
    preset: str = "default"
    recipe: Recipe = "iterative-dpo"
    rounds: int | None = Field(default=None, ge=1, le=100)
    heldout: str | None = None
    rollback_p: float = Field(default=0.05, ge=0, le=1, allow_inf_nan=False)
    external: str | None = None
    summary_paths: int = Field(default=4, ge=0, le=1000)
    child: bool = True
    trainer: str = "dpo"
    backend: str = "hf"
    backend_options: dict[str, Any] = Field(default_factory=dict)
    generation: RoundPaths = RoundPaths()
    pairs: RoundPairs = RoundPairs()
    reasoning: dict[str, Any] = Field(default_factory=dict)
    summary: dict[str, Any] = Field(default_factory=dict)
    preference: dict[str, Any] = Field(default_factory=dict)
    direct: dict[str, Any] = Field(default_factory=dict)
    multi_turn: dict[str, Any] = Field(default_factory=dict, alias="multi-turn")

    @property
    def common(self) -> dict[str, Any]:
        """The settings of training for every agent."""
        return dict(self.model_extra or {})


class Bands(Section):
    """`[bands]`: thresholds of the path score, 1..100 (the paper does not publish its own)."""

    high: float = Field(default=80, ge=1, le=100, allow_inf_nan=False)
    mid: float = Field(default=50, ge=1, le=100, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ordered(self) -> Bands:
        if self.mid > self.high:
            raise ValueError(f"mid = {self.mid:g} is above high = {self.high:g}; lower mid or raise high")
        return self


class ImageSection(Section):
    """`[images]`: `max_pixels` is the size that pictures are scaled down to (the paper's 1280*28*28).

    `hosts` are the hosts that http(s) images may come from; none by default.
    """

    max_pixels: int = Field(default=1280 * 28 * 28, ge=784, le=100_000_000)
    hosts: tuple[str, ...] = ()

    @property
    def opening(self) -> Opening:
        """The same as the functions take it that open images."""
        return {"allow_http": self.hosts or False, "limits": ImageLimits(max_pixels=self.max_pixels)}


def _known_fields(columns: dict[str, str | tuple[str, ...]]) -> dict[str, str | tuple[str, ...]]:
    for name in columns:
        if name not in FIELDS:
            hint = did_you_mean(name, FIELDS, "rename it")
            raise ValueError(f"{name!r} is not a field of a question (those are {', '.join(FIELDS)}); {hint}")
    return columns


def _known_layout(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"it is not known (there are {', '.join(NAMES)}); {did_you_mean(name, NAMES, 'leave it out')}")
    return name


Columns = Annotated[dict[str, str | tuple[str, ...]], AfterValidator(_known_fields)]
"""Our field names -> a dataset's own; several for images and choices that have a column each."""


class QuestionSection(Section):
    """`[questions]`: `columns` maps our field names to a dataset's own.

    `layout` names a well-known one (`inputs.layouts`), `answer` says what a whole number is beside choices: one of
    their texts, or a place counted from 0.
    """

    columns: Columns = Field(default_factory=dict)
    layout: Annotated[str, AfterValidator(_known_layout)] | None = None
    answer: AnswerIs = "auto"


Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


MixBand = Literal["high", "mid", "low", "wrong"]


def _default_mix() -> dict[MixBand, float]:
    return {"high": 0.4, "mid": 0.2, "low": 0.2, "wrong": 0.2}


class DatasetSection(Section):
    """`[datasets]`: what of an assessed run becomes training data (paper section 3).

    `best_per_question` high paths of a question go to the reason set. `summary_mix` gives the shares of the bands in
    the summary set, `summary_total` its size (None: all that the mix allows), `summary_per_question` the most paths of
    one question. `general` is a questions file mixed in, `general_share` its share of the whole, `general_columns` what
    `[questions.columns]` is for the questions themselves.
    """

    best_per_question: int = Field(default=1, ge=1)
    summary_mix: dict[MixBand, Share] = Field(default_factory=_default_mix)
    summary_total: int | None = Field(default=None, ge=1)
    summary_per_question: int = Field(default=4, ge=1)
    general: str | None = None
    general_columns: Columns = Field(default_factory=dict)
    general_share: float = Field(default=0.5, ge=0, lt=1, allow_inf_nan=False)
    licence: str = ""
    source: str = ""
