"""Code that is not ours: which of what it throws is meant for us, and how the rest is told in words that can be stored.

Knows no pipeline. A plugin's part may throw anything: `sys.exit`, a cancellation of its own, errors whose text cannot
be written as UTF-8 or cannot be made at all.
"""

from __future__ import annotations

import asyncio
import re

from insightv.errors import ModelError, StopRun
from insightv.records import Usage
from insightv.redact import Redactor, environment_secrets

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,80}")
_MOST_BYTES = 2000


def is_ours(error: BaseException) -> bool:
    """Whether an error that comes out of a part is to go on: a stop, an interrupt, or the cancelling of this task.

    A CancelledError that nobody asked this task for is a stranger's own; taken for ours it would end a question
    without an outcome.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, StopRun | KeyboardInterrupt)


def is_own(part: object) -> bool:
    """Whether a part is insightv's own: what it returns was checked when it was made, and is not checked again."""
    return type(part).__module__.partition(".")[0] == "insightv"


def told(error: BaseException, *, kind: bool = True) -> str:
    """The error in words, without secrets, that can be stored; `kind` puts its class before them."""
    try:
        text = str(error)
    # `__str__` is a stranger's as well.
    except Exception:
        text = "(an error whose text cannot be shown)"
    return stored(f"{type(error).__name__}: {text}" if kind else text)


def stored(text: object) -> str:
    """A text as it can be stored: without secrets and half characters, on at most 2,000 bytes."""
    return Redactor(environment_secrets()).clean(text if isinstance(text, str) else "", _MOST_BYTES)


def code_of(error: ModelError) -> str:
    """The error's code, or `backend_error` where it has none that can be counted."""
    return error.code if isinstance(error.code, str) and _CODE.fullmatch(error.code) else "backend_error"


def cost_of(error: ModelError | StopRun) -> Usage:
    """What the failed tries cost; one request where the error does not say it in our terms."""
    return error.usage if isinstance(error.usage, Usage) else Usage(requests=1)
