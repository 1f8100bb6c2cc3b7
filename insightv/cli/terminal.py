"""What the commands share: options, lines for people and for programs, and how a signal stops work."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from insightv.errors import Interrupted, StopRun
from insightv.redact import one_line, without_controls

err = Console(stderr=True, emoji=False)  # `:100:` in a line for people is a line number

Run = Annotated[Path, typer.Option("--run", help="The run's folder.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings (insightv.toml).", dir_okay=False)]
Changes = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, on top of the settings.")]
BadRows = Annotated[Literal["stop", "skip"], typer.Option("--bad-rows", help="What rows that cannot be used do.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Consent to what the settings in the run's folder start, send and open.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")]


def typed(*words: object) -> str:
    """A command of insightv's as it is typed, with quotes where a shell needs them."""
    return shlex.join(["insightv", *map(str, words)])


def say(text: str) -> None:
    """A line for people, on stderr; control codes, which models and data may hold, do not reach the terminal."""
    err.print(without_controls(text), highlight=False, markup=False, soft_wrap=True)


class _Said(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(one_line(record.getMessage()))


def show_log(name: str) -> None:
    """Show what a logger says, from INFO up, as lines for people."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _Said) for handler in logger.handlers):
        logger.addHandler(_Said())


def out(text: str) -> None:
    """Lines on stdout, without control codes; JSON holds none where it is ASCII."""
    sys.stdout.write(without_controls(text) + "\n")


def interruptible(
    work: Any, interrupt: Callable[[int], None], again: str, stopped: Callable[[], None] = lambda: None
) -> Any:
    """Run a coroutine; SIGINT and SIGTERM ask it to stop, a second one ends the process at once.

    `again` is the command that continues where it stopped; `stopped` is called when it has, before the process ends.
    """

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)
        asked: list[int] = []

        def stop(number: int) -> None:
            say("stopping: calls in flight are recorded, nothing new is begun; once more to end at once")
            interrupt(number)

        def on_signal(number: int, _: object) -> None:
            if asked:  # the loop may be blocked, by a plugin that does not give it back
                os._exit(128 + number)
            asked.append(number)
            loop.call_soon_threadsafe(stop, number)

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return await task
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    try:
        return asyncio.run(main())
    except StopRun as error:
        say(f"stopped: {one_line(str(error))}" if not isinstance(error, Interrupted) else "stopped")
        say(f"resume with: {again}")
        stopped()
        raise typer.Exit(error.exit_code) from None
