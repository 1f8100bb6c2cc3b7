"""A `vllm serve`: started, watched, started again and stopped. It knows no chat, only the process and its adapters.

A thread of its own owns the process. Models ask `ready` before a call; `model` says which share one engine.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import re
import secrets
import socket
import tempfile
import threading
import time
from pathlib import Path

from insightv.backends.openai.endpoint import endpoint_at
from insightv.backends.vllm import log_reader
from insightv.backends.vllm.launch import Launch
from insightv.backends.vllm.source import BASE, Adapter
from insightv.child_processes import KeptProgram, end_of
from insightv.errors import ConfigError
from insightv.inputs.plain_file import refuse_strange

log = logging.getLogger("insightv.vllm")

LOOK_S = 0.1
PROGRESS_EVERY_S = 10.0
PORTS = 3
"""Ports that are tried at the first start: another program may take one before vllm does."""


class Engine:
    """One server. `deaths` counts how often it has ended by itself, `fault` says why it is not started any more."""

    def __init__(self, launch: Launch, log_folder: str | None) -> None:
        self.launch = launch
        self.deaths = 0
        self.fault: str | None = None
        self.key = secrets.token_urlsafe(24)
        self.port = _free_port()
        self.group: int | None = None
        self._folder = log_folder
        self._log: Path | None = None
        self._in_row = 0
        self._up, self._was_up = False, False
        self._wanted: dict[str, tuple[Adapter, int]] = {}
        self._loaded: frozenset[str] = frozenset()
        self._room, self._outside = 0, False
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._stop, self._again = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The server's address; it stays the same when the server is started again."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """The server's log, of all its starts."""
        if self._log is None:
            folder = Path(self._folder or tempfile.mkdtemp(prefix="insightv-vllm-"))
            folder.mkdir(parents=True, exist_ok=True)
            name = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(self.launch.model).name)
            self._log = folder / f"vllm-{name}.log"
        return self._log

    def want(self, adapter: Adapter | None) -> None:
        """A model that needs the adapter has been made."""
        if adapter is not None:
            with self._lock:
                self._wanted[adapter.name] = (adapter, self._wanted.get(adapter.name, (adapter, 0))[1] + 1)

    def unwant(self, adapter: Adapter | None) -> None:
        """That model is closed."""
        if adapter is not None:
            with self._lock:
                _, users = self._wanted.pop(adapter.name)
                if users > 1:
                    self._wanted[adapter.name] = (adapter, users - 1)

    def answered(self) -> None:
        """A call was answered, so the engine works."""
        self._in_row = 0

    async def ready(self, adapter: Adapter | None) -> None:
        """Wait until the server answers and has the adapter.

        Raises:
            ConfigError: it cannot be started, has died too often, or cannot load the adapter.
        """
        self._begin()
        while True:
            if self.fault is not None:
                raise ConfigError(self.fault)
            if self._up:
                if adapter is None or adapter.name in self._loaded:
                    return
                await asyncio.to_thread(self._load, adapter)
            else:
                await asyncio.sleep(LOOK_S)

    def close(self) -> None:
        """Stop the server, and wait until all its processes are gone."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._supervise, name="insightv vllm", daemon=True)
                self._thread.start()

    def _supervise(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    process = self._started()
                except ConfigError as error:
                    self._down(str(error))
                    continue
                self._watch(process)
        # Whoever waits for this engine must hear of it, whatever went wrong here.
        except Exception as error:
            log.exception("the thread that watches vllm failed")
            self.fault = f"vllm serve {self.launch.model} cannot be watched any more: {type(error).__name__}: {error}"

    def _watch(self, process: KeptProgram) -> None:
        """Until the process has ended, by itself or because it must."""
        try:
            while not process.wait(0):
                if self._stop.wait(LOOK_S) or self._again.is_set():
                    return
            self._up = False
            self.deaths += 1
            self._down(log_reader.why(self._said(), process.code))
        finally:
            self._up = False
            self._again.clear()
            process.end()

    def _down(self, reason: str) -> None:
        """It could not start, or has died: say so, and wait a little before the next start, if there is one."""
        if self._stop.is_set():
            return
        what, where = f"vllm serve {self.launch.model}", f"its log: {str(self.log)!r}"
        self._in_row += 1
        if not self._was_up:
            self.fault = f"{what} did not start: {reason} ({where})"
        elif self._in_row > self.launch.restarts:
            self.fault = f"{what} died {self._in_row} times without an answer in between: {reason} ({where})"
        if self.fault is not None:
            self._stop.set()
            return
        log.warning("%s has ended and is started again (%s): %s", what, where, reason.splitlines()[0])
        self._stop.wait(min(2.0 ** (self._in_row - 1) - 1, 30.0))

    def _started(self) -> KeptProgram:
        """The process, when it answers.

        Raises:
            ConfigError: it does not; nothing of it is left.
        """
        ports = 1 if self._was_up else PORTS  # calls in flight know the port of a server that was up
        while True:
            ports -= 1
            process = self._spawn()
            try:
                if self._await_answer(process):
                    return process
            except BaseException:
                process.end()
                raise
            said = self._said()
            if not ports or not re.search("[Aa]ddress already in use", said):
                raise ConfigError(log_reader.why(said, process.code))
            self.port = _free_port()

    def _spawn(self) -> KeptProgram:
        with self._lock:
            adapters = [adapter for adapter, _ in self._wanted.values()]
        command = self.launch.command(self.port, adapters)
        refuse_strange(self.log)
        with self.log.open("ab") as file:
            self._log_start = file.tell()
            file.write(f"$ {' '.join(command)}\n".encode())
            file.flush()
            try:
                process = KeptProgram(command, self.launch.variables(self.key), file)
            except OSError as error:
                raise ConfigError(f"no process could be started: {error}") from error
        self.group = process.pid
        self._loaded = frozenset(adapter.name for adapter in adapters)
        self._room = max((adapter.room for adapter in adapters), default=0)
        self._outside = any(adapter.outside for adapter in adapters)
        return process

    def _said(self) -> str:
        """What the log holds of the last start, at most its last 256 kB."""
        return end_of(self.log, 256 * 1024, self._log_start)

    def _await_answer(self, process: KeptProgram) -> bool:
        """Whether it came to answer; False where it ended first."""
        began = said_at = time.monotonic()
        log.info("starting vllm serve %s (log: %s)", self.launch.model, self.log)
        while not self._answers():
            if process.wait(0):
                return False
            now = time.monotonic()
            if now - began > self.launch.start_s:
                raise ConfigError(
                    f"it did not answer within start_s = {self.launch.start_s:g} s; the end of its log:\n"
                    + log_reader.tail(self._said())
                )
            if now - said_at > PROGRESS_EVERY_S:
                said_at = now
                last = log_reader.tail(self._said()).splitlines()[-1:]
                log.info("vllm has been starting for %.0f s: %s", now - began, "".join(last)[:160])
            if self._stop.wait(LOOK_S):
                raise ConfigError("it was stopped while it started")
        if self._outside and log_reader.CONNECTOR_REFUSED.search(self._said()):
            raise ConfigError(
                "an adapter changes layers outside the language model, and vLLM cannot adapt these for this model; "
                "serve the merged model, or train with train_projector = false"
            )
        log.info("vllm serve %s answers after %.0f s", self.launch.model, time.monotonic() - began)
        self._up = self._was_up = True
        endpoint_at(f"{self.url}/v1").is_up()  # calls that wait for it need not wait for their next probe
        return True

    def _answers(self) -> bool:
        try:
            status, body = self._http("GET", "/v1/models")
        except (OSError, http.client.HTTPException):
            return False
        return status == 200 and f'"{BASE}"'.encode() in body

    def _load(self, adapter: Adapter) -> None:
        """Load an adapter into the running server; where there is no room for it, start the server again with it."""
        with self._loading:
            if not self._up or adapter.name in self._loaded:
                return
            if adapter.room <= self._room and adapter.outside <= self._outside:
                try:
                    form = {"lora_name": adapter.name, "lora_path": adapter.folder}
                    status, body = self._http("POST", "/v1/load_lora_adapter", form, timeout_s=300)
                except (OSError, http.client.HTTPException):
                    return  # it died: its next start has the adapter
                if status == 200:
                    self._loaded |= {adapter.name}
                    return
                if status not in (404, 405):
                    said = body.decode(errors="replace")[:400]
                    raise ConfigError(f"vllm does not load the adapter {adapter.folder!r}: {status}: {said}")
            log.info("vllm serve %s is started again to take %s", self.launch.model, adapter.folder)
            self._up = False
            self._again.set()

    def _http(
        self, method: str, path: str, form: dict[str, str] | None = None, timeout_s: float = 5.0
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(form) if form else None, headers)
            reply = connection.getresponse()
            return reply.status, reply.read(1024 * 1024)
        finally:
            connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
