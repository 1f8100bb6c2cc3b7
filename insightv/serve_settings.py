"""The `[serve]` table of the configuration. Nothing in it changes results."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

_MB = 2**20


class ServeSection(BaseModel):
    """`[serve]`: where `insightv serve` listens, and what one request may take.

    `api_key_env` names the variable with the key that clients send; on an address that is not loopback there must be
    one. `hosts` are further names under which clients reach the server, `image_hosts` those that images may be fetched
    from (none). `concurrency` is the number of questions at work; more are told to come back later. `deadline_s` bounds
    a question, `body_s` the arrival of its request, `send_s` the taking of each piece of its reply. Questions that take
    longer than `drain_s` when the server is told to stop end with an error. A request may ask for less than
    `max_paths`, `max_steps` (None: as the agents are set) and `max_tokens` (of both agents together), not for more.
    `max_text` is in characters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    api_key_env: str = "INSIGHTV_API_KEY"
    hosts: tuple[str, ...] = ()
    image_hosts: tuple[str, ...] = ()
    concurrency: int = Field(default=64, ge=1, le=10_000)
    deadline_s: float = Field(default=300, gt=0, allow_inf_nan=False)
    body_s: float = Field(default=30, gt=0, allow_inf_nan=False)
    send_s: float = Field(default=30, gt=0, allow_inf_nan=False)
    drain_s: float = Field(default=30, ge=0, le=3600, allow_inf_nan=False)
    max_body_bytes: int = Field(default=32 * _MB, ge=1024)
    max_images: int = Field(default=8, ge=0, le=1000)
    max_image_bytes: int = Field(default=16 * _MB, ge=1024)
    max_image_pixels: int = Field(default=40_000_000, ge=784)
    max_text: int = Field(default=32_000, ge=1)
    max_paths: int = Field(default=4, ge=1, le=100)
    max_steps: int | None = Field(default=None, ge=1)
    max_tokens: int = Field(default=16_384, ge=2)
