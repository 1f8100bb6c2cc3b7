"""A fake `vllm` program: the fake model server behind the command line, key and routes of `vllm serve`. For tests only.

`installed(folder, ...)` writes the command and returns it. Like the real one it has a child that does the work, listens
only after a while, and knows adapters by name. FAKE_VLLM in its environment is JSON of `Behaviour`; what it was started
with stands in `starts.jsonl` of the folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from tests.servers.fake_openai import FakeModel, Settings

ROOT = Path(__file__).parents[2]
SAYS = {
    "memory": "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
    "architecture": "ValueError: Model architectures ['Strange'] are not supported for now. Supported: dict_keys([])",
    "names": "ValueError: There is no module or parameter named 'vision_tower.embeddings' in LlavaNext",
    "port": "OSError: [Errno 98] Address already in use",
    "other": "RuntimeError: the moon is in the wrong place",
}


class Behaviour(BaseModel):
    """`refuse`: how a start fails; `refusals`: the starts, from 0, that fail so (None: all). `dies_on`: a request with
    this text kills the process, `deaths` times at most. `adapters`: whether adapters can be loaded at run time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str = ""
    refuse: str = ""
    refusals: tuple[int, ...] | None = None
    silent: bool = False
    dies_on: str = ""
    deaths: int = 1
    adapters: bool = True
    latency_s: float = 0.0


def installed(folder: Path, **behaviour: Any) -> dict[str, Any]:
    """The options `program` and `environment` of a backend that uses the fake."""
    folder.mkdir(exist_ok=True)
    program = folder / "vllm"
    program.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m tests.servers.fake_vllm "$@"\n')
    program.chmod(0o755)
    told = Behaviour(folder=str(folder), **behaviour).model_dump_json()
    return {"program": str(program), "environment": {"FAKE_VLLM": told}}


def starts(folder: Path) -> list[dict[str, Any]]:
    """What the program was started with, start by start: its arguments and the ids of its processes."""
    file = folder / "starts.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def alive(pid: int) -> bool:
    """Whether there is such a process that is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm serve")
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    for name in ("host", "served-model-name", "max-model-len"):
        parser.add_argument(f"--{name}")
    for name in ("port", "max-loras", "max-lora-rank"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("prefix-caching", "prompt-tokens-details", "lora", "tower-connector-lora"):
        parser.add_argument(f"--enable-{name}", action="store_true")
    parser.add_argument("--disable-uvicorn-access-log", action="store_true")
    parser.add_argument("--lora-modules", nargs="*", default=[])
    return parser.parse_args()


class FakeVllm:
    """One start of the program."""

    def __init__(self, behaviour: Behaviour, arguments: argparse.Namespace) -> None:
        self._behaviour = behaviour
        self._folder = Path(behaviour.folder)
        self._arguments = arguments
        self._models = [arguments.served_model_name, *(module.split("=")[0] for module in arguments.lora_modules)]
        settings = Settings(key=os.environ["VLLM_API_KEY"], models=tuple(self._models), latency_s=behaviour.latency_s)
        self._fake = FakeModel(settings)

    async def serve(self) -> None:
        app = self._fake.app()
        app.middlewares.append(self._deadly)
        if os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") and self._behaviour.adapters:
            app.router.add_post("/v1/load_lora_adapter", self._load)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, self._arguments.host, self._arguments.port, reuse_address=True).start()
        await asyncio.Event().wait()

    @web.middleware
    async def _deadly(self, request: web.Request, handler: Any) -> web.StreamResponse:
        text, died = self._behaviour.dies_on, self._folder / "died"
        if text and text in (await request.read()).decode(errors="replace"):
            count = len(died.read_text()) if died.is_file() else 0
            if count < self._behaviour.deaths:
                died.write_text("x" * (count + 1))
                os.kill(os.getpid(), signal.SIGKILL)
        response: web.StreamResponse = await handler(request)
        return response

    async def _load(self, request: web.Request) -> web.Response:
        form = await request.json()
        if not (Path(form["lora_path"]) / "adapter_model.safetensors").is_file() or "broken" in form["lora_path"]:
            return web.json_response({"error": {"message": "no adapter there"}}, status=400)
        self._models.append(form["lora_name"])
        self._fake.set(self._fake.settings.model_copy(update={"models": tuple(self._models)}))
        return web.Response(text="Success")


def main() -> None:
    behaviour = Behaviour.model_validate_json(os.environ["FAKE_VLLM"])
    folder = Path(behaviour.folder)
    number = len(starts(folder))
    worker = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    with (folder / "starts.jsonl").open("a") as file:
        file.write(json.dumps({"arguments": sys.argv[1:], "pids": [os.getpid(), worker.pid]}) + "\n")
    arguments = _parsed()
    print(f"fake vllm, start {number}", flush=True)
    if behaviour.refuse and (behaviour.refusals is None or number in behaviour.refusals):
        if behaviour.refuse == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(SAYS[behaviour.refuse])
    if behaviour.silent:
        signal.pause()
    asyncio.run(FakeVllm(behaviour, arguments).serve())


if __name__ == "__main__":
    main()
