"""The thread that owns a loaded model: it takes requests from a queue, runs their rows and hands the replies back."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress

import torch

from insightv.backends.hf.load import Loaded, load
from insightv.backends.hf.plain_generate import PlainPrompter, Whole
from insightv.backends.hf.prefix_cache import KeptStates
from insightv.backends.hf.probe import why_not_chains
from insightv.backends.hf.prompt import Prompter, Prompts
from insightv.backends.hf.rows import Counts, Request, Row
from insightv.backends.hf.scheduler import Chains
from insightv.backends.hf.source import ModelSource

log = logging.getLogger(__name__)


Runner = Chains | Whole
"""What runs rows; `Whole` those of models that `Chains` cannot run."""


class Engine:
    """One model in its own thread. `ready` holds the prompter, or the error that loading ended with."""

    def __init__(self, source: ModelSource, batch: int, cache_gb: float | None, threads: int | None) -> None:
        self.ready: Future[Prompts] = Future()
        self.counts = Counts()
        self.context = 0
        self._source = source
        self._batch = batch
        self._cache_gb = cache_gb
        self._threads = threads
        self._inbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._closed = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"hf {source.model}", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue a request; its `deliver` is called when it is done."""
        if self._closed:
            request.fail("connection", "the model has been closed")
            return
        self._inbox.put(request)
        if self._ended:  # perhaps before it could take the request, and after it looked for the last time
            self._end(())

    @property
    def alive(self) -> bool:
        """Whether the thread takes requests."""
        return not self._ended

    def close(self) -> None:
        """Stop the thread and wait for it; requests that are not done fail. The model's memory is given back."""
        self._closed = True
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            if self._threads is not None:
                torch.set_num_threads(self._threads)
            loaded = load(self._source)
            with torch.inference_mode():
                runner, prompter = self._runner(loaded)
        except BaseException as error:  # whatever it was, those who wait for the model are told
            self.ready.set_exception(error)
            return
        self.context = loaded.context
        self.ready.set_result(prompter)
        try:
            with torch.inference_mode():
                while self._take(runner, loaded, prompter):
                    self._step(runner)
        finally:
            self._end((*runner.waiting, *runner.back_off()))

    def _end(self, rows: Iterable[Row]) -> None:
        """Fail what is not done, and what still waits to be taken."""
        self._ended = True
        requests = {row.request for row in rows}
        with suppress(queue.Empty):
            while True:
                request = self._inbox.get_nowait()
                requests |= {request} if request is not None else set()
        for request in requests:
            request.fail("connection", "the model has been closed" if self._closed else "the engine has ended")

    def _runner(self, loaded: Loaded) -> tuple[Runner, Prompts]:
        prompter = Prompter(loaded)
        reason = why_not_chains(loaded, prompter)
        if reason is None:
            kept = KeptStates(_cache_bytes(loaded.model.device, self._cache_gb))
            return Chains(loaded, prompter, kept, self._batch, self.counts), prompter
        log.warning(
            "%s: %s; running batches of plain generate, without reuse of key-value states", self._source.model, reason
        )
        return Whole(loaded, self._batch, self.counts), PlainPrompter(loaded)

    def _take(self, runner: Runner, loaded: Loaded, prompter: Prompts) -> bool:
        """Move new requests to the runner, waiting for one where there is nothing else to do; False: closed."""
        while not runner.busy or not self._inbox.empty():
            request = self._inbox.get()
            if request is None:
                return False
            request.rows = [Row(request, i, loaded, prompter) for i in range(request.n)]
            runner.waiting.extend(request.rows)
        return True

    def _step(self, runner: Runner) -> None:
        runner.touched = []
        try:
            runner.step()
        except Exception as error:  # one request must not end the thread that serves all
            if not _out_of_memory(error):
                log.exception("the model failed on %d rows", len(runner.touched))
                for row in runner.touched:
                    row.request.fail("worker_crash", f"the model failed: {type(error).__name__}: {error}")
                return
            rows = runner.back_off()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(rows) > 1:
                runner.limit = len(rows) // 2
                log.warning("out of memory with %d rows; continuing with %d", len(rows), runner.limit)
            for row in rows if len(rows) == 1 else ():
                row.request.fail(
                    "oom",
                    f"out of memory with a single reply ({len(row.tokens)} tokens); use a smaller model or picture,"
                    " a smaller dtype, or a machine with more memory",
                )


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("not enough memory" in text or "out of memory" in text)


def _cache_bytes(device: torch.device, cache_gb: float | None) -> int:
    """The limit for kept states: as asked, else a fifth of the free GPU memory or 1 GB of the computer's."""
    if cache_gb is not None:
        return int(cache_gb * 2**30)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 5
    return 2**30
