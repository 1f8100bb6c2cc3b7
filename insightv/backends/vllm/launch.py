"""How `vllm serve` is started: its command line and its environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from insightv.backends.vllm.source import BASE, Adapter, servable


@dataclass(frozen=True)
class Launch:
    """How an engine is started. `start_s` bounds a start, `restarts` the deaths in a row without an answered call."""

    program: str
    model: str
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    start_s: float = 1800.0
    restarts: int = 4

    def command(self, port: int, adapters: Sequence[Adapter]) -> list[str]:
        """The command line of the server at `port` that begins with these adapters."""
        command = [self.program, "serve", servable(self.model), "--host", "127.0.0.1"]
        command += ["--port", str(port), "--served-model-name", BASE, "--enable-prefix-caching"]
        command += ["--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
        if adapters:
            rank = str(max(adapter.room for adapter in adapters))
            command += ["--enable-lora", "--max-loras", str(max(2, len(adapters))), "--max-lora-rank", rank]
            if any(adapter.outside for adapter in adapters):
                command.append("--enable-tower-connector-lora")
            command += ["--lora-modules", *(f"{adapter.name}={adapter.folder}" for adapter in adapters)]
        return [*command, *self.arguments]

    def variables(self, key: str) -> dict[str, str]:
        """The environment of the server, which asks its clients for `key`."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        own = {"VLLM_API_KEY": key, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
        own |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if Path(self.model).is_dir():
            own["HF_HUB_OFFLINE"] = "1"
        return kept | own | dict(self.environment)
