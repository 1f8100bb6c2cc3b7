"""The command `insightv`.

Exit codes: 0 done, 1 a fault inside insightv, 2 input or configuration is wrong, 3 stopped and resumable, 4 done but
some items failed, 130 or 143 interrupted and resumable, 141 nobody reads stdout any more.
"""

from __future__ import annotations

import errno
import sqlite3
import sys
import traceback
from typing import Annotated

import typer
from rich.markup import escape

from insightv import __version__
from insightv.cli.agents import answer, serve
from insightv.cli.build import build
from insightv.cli.demo import demo
from insightv.cli.evaluate import evaluate
from insightv.cli.questions import questions
from insightv.cli.run import export, report, status
from insightv.cli.setup import config, plugins
from insightv.cli.streams import StdoutLost, own_streams
from insightv.cli.terminal import err, say, show_log
from insightv.cli.train import train
from insightv.errors import InputError, InsightvError, ModelError, StopRun
from insightv.redact import one_line, without_controls

app = typer.Typer(
    name="insightv",
    help="Build checked, step-by-step visual reasoning data, and ask the two-agent reasoner.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        print("insightv", __version__)
        raise typer.Exit


@app.callback()
def _insightv(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Read what stands before a command."""


for command in (demo, questions, build, train, answer, serve, status, report, export, evaluate, plugins, config):
    app.command()(command)


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        with own_streams():
            _run()
    except StdoutLost as lost:
        if str(lost):
            say(f"error: {lost}")
        sys.exit(lost.exit_code)


def _run() -> None:
    show_log("insightv.vllm")  # a server of our own takes minutes to start
    try:
        app()  # leaves by SystemExit: with 2 where an option or a command is unknown
    except KeyboardInterrupt:
        sys.exit(130)
    except StdoutLost:
        raise
    except InsightvError as error:
        # What a model's side says is one line; a list of bad rows or of changes is ours.
        text = one_line(str(error)) if isinstance(error, ModelError | StopRun) else without_controls(str(error))
        err.print(f"[bold red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    # Whatever else arrives here is a fault of our own, but for a run's file that is not what was written.
    except Exception as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            say(f"error: the run's database is damaged ({error}); restore it from a copy, or begin in another --run")
            sys.exit(InputError.exit_code)
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            say(f"error: a path is too long for this system: {str(error.filename)[:80]!r}...; name a shorter one")
            sys.exit(InputError.exit_code)
        traceback.print_exc()
        say("this is a fault inside insightv; please report it with the lines above")
        sys.exit(1)


if __name__ == "__main__":
    main()
