"""What can go wrong, named after the boundary that was crossed.

InsightvError
├── InputError           questions or images are wrong: nothing was started            exit 2
├── ConfigError          settings are wrong: nothing was started                       exit 2
│   └── RunChanged       a run exists and was made with other settings                 exit 2
├── PluginError          a plugin cannot be found, loaded or used                      exit 2
├── MissingExtra         an optional package is not installed                          exit 2
├── ModelError           one model call was not answered; the item fails with `code`   (exit 4 at the end)
└── StopRun              nothing more may be asked; what is recorded stays             exit 3
    └── KeyRefused, QuotaExhausted, ModelUnknown, RequestsRefused, BudgetSpent, EndpointParked, StorageFull,
        TooManyOpenFiles, RunHeld, Interrupted
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from insightv.records import ReasoningPath, Usage

__all__ = [
    "BudgetSpent",
    "ConfigError",
    "EndpointParked",
    "InputError",
    "InsightvError",
    "Interrupted",
    "KeyRefused",
    "MissingExtra",
    "ModelError",
    "ModelUnknown",
    "PluginError",
    "QuotaExhausted",
    "RequestsRefused",
    "RunChanged",
    "RunHeld",
    "StopRun",
    "StorageFull",
    "TooManyOpenFiles",
]


_SHOWN = 50
"""The most differences in the text of a RunChanged."""


class InsightvError(Exception):
    """Any error that insightv raises on purpose. `exit_code` is what the command line ends with."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled as it is, whatever its class is made of: errors come back from worker processes."""
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(kind: type[InsightvError], args: tuple[Any, ...], state: dict[str, Any]) -> InsightvError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class InputError(InsightvError):
    """Questions or images cannot be used; the text names file, row, field and cure."""

    exit_code = 2


class ConfigError(InsightvError):
    """A setting is unknown, of the wrong type or out of range; the text names it and the cure."""

    exit_code = 2


class RunChanged(ConfigError):
    """A run exists and was made with something that changes results; `differences` lists each."""

    def __init__(self, message: str, differences: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences

    @classmethod
    def of(cls, what: str, differences: Sequence[str], cure: str) -> RunChanged:
        """The refusal to continue `what` was made otherwise: the first differences in the text, and the cure."""
        shown = "".join(f"\n  {difference}" for difference in differences[:_SHOWN])
        more = f"\n  ... and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        return cls(f"{what}:{shown}{more}\n{cure}", tuple(differences))


def differences_between(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> list[str]:
    """Each place where two nested mappings differ, as `place: old -> new`."""
    found = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences_between(before, after, f"{where}{key}.")
        elif before != after:
            found.append(f"{where}{key}: {' -> '.join(_short(before, after))}")
    return found


def _short(*values: object) -> list[str]:
    """The values as JSON; of long ones about 100 characters from where they begin to differ."""
    texts = [json.dumps(value, ensure_ascii=False, default=str) for value in values]
    same = next((place for place, pair in enumerate(zip(*texts, strict=False)) if len(set(pair)) > 1), 0)
    begin = 0 if same < 80 else same - 20
    cut = [("..." if begin else "") + text[begin:] for text in texts]
    return [text if len(text) <= 100 else text[:97] + "..." for text in cut]


class PluginError(InsightvError):
    """A plugin is unknown, clashes, fails to load or breaks its contract; the text names its distribution."""

    exit_code = 2


class MissingExtra(InsightvError):
    """A package of an optional extra is needed and not installed; the text has the install command."""

    exit_code = 2


class ModelError(InsightvError):
    """A model call that was not answered.

    `code` is short and stable (timeout, connection, server_error, malformed, bad_request, oom, worker_crash, ...);
    `usage` is what the failed tries cost; `kept` is the start (at most 2 kB) of the last reply, if there was one.
    Where a `Reasoner` gives no answer, `path` and `paths` are those of an `Answer`, and `usage` has what they cost too.
    """

    exit_code = 4

    path: ReasoningPath | None = None
    paths: tuple[ReasoningPath, ...] = ()

    def __init__(self, code: str, message: str, *, usage: Usage | None = None, kept: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.usage: Usage = usage or Usage()
        self.kept = kept


class StopRun(InsightvError):
    """Nothing more may be asked of the model; the run can be resumed once the cause is gone."""

    exit_code = 3
    usage: Usage = Usage()


class KeyRefused(StopRun):
    """The server refused the key (401 or 403)."""


class QuotaExhausted(StopRun):
    """The account's quota is used up (insufficient_quota)."""


class ModelUnknown(StopRun):
    """The server does not have the model (404)."""


class RequestsRefused(StopRun):
    """The server refuses whatever it is asked (400), so the fault is not a single question's."""


class BudgetSpent(StopRun):
    """A budget of `[run]` (max_requests, max_tokens, max_usd) is reached."""


class EndpointParked(StopRun):
    """The server asks to be left alone for longer than a run should wait."""


class StorageFull(StopRun):
    """The run's folder cannot be written; replies in flight were held back, nothing recorded is lost."""

    @classmethod
    def of(cls, path: Path, error: OSError, size: int | None = None) -> StopRun:
        """What an OSError at `path` means for the run; `size` in bytes is what was to be written, where it is known."""
        if TooManyOpenFiles.is_behind(error):
            return TooManyOpenFiles.of(str(path))
        cure = "free some space or make the folder writable"
        if isinstance(error, FileExistsError | NotADirectoryError):
            cure = f"a file is where a folder is needed ({error.filename}): move it away"
        what = str(path) if size is None else f"{path} ({size} bytes)"
        return cls(f"{what} cannot be written: {error.strerror or error}; {cure}, then resume the run")


class TooManyOpenFiles(StopRun):
    """No further file or connection can be opened; what is recorded stays."""

    @classmethod
    def of(cls, wanted: str) -> TooManyOpenFiles:
        """The error of what is `wanted` and cannot be opened."""
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return cls(
            f"{wanted} cannot be opened: too many files are open, and this process may have {most} (the limit of open "
            "files); raise that (ulimit -n) or lower run.concurrency, then resume the run"
        )

    @staticmethod
    def is_behind(error: BaseException) -> bool:
        """Whether an error comes of that. Where the system's number is not told with it, another opening is tried."""
        number = getattr(error, "errno", None)
        if number in _OPEN_FILES:
            return True
        if isinstance(number, int) and number > 0:
            return False
        try:
            os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as probed:
            return probed.errno in _OPEN_FILES
        return False

    @classmethod
    def raise_if_behind(cls, error: BaseException, wanted: str) -> None:
        """Raise it where an error comes of it."""
        if cls.is_behind(error):
            raise cls.of(wanted) from None


_OPEN_FILES = (errno.EMFILE, errno.ENFILE)


class RunHeld(StopRun):
    """Another process is writing this run."""


class Interrupted(StopRun):
    """The run was told to stop by a signal; the exit code is 128 plus the signal's number."""

    def __init__(self, signal_number: int = 2) -> None:
        super().__init__("interrupted")
        self.exit_code: int = 128 + signal_number


def require(package: str, extra: str) -> None:
    """Check that an optional package is installed, before code that imports it.

    Raises:
        MissingExtra: it is not; the text has the command that installs it.
    """
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise MissingExtra(f"the package {package!r} is needed here; install it with: pip install 'insightv[{extra}]'")


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint for an unknown name: the nearest one that is known, or `otherwise` where none is near."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else otherwise
