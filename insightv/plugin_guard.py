"""Calling code of plugins: which of its errors pass through, and how the others are put into words that can be stored.

Knows no pipeline. A plugin's part may throw anything: `sys.exit`, a cancellation of its own, errors whose text cannot
be written as UTF-8 or cannot be made at all.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from insightv.errors import ConfigError, InsightvError, ModelError, StopRun
from insightv.interfaces import MADE_WITH, ChatModel, Generator, ReasoningAgent, Scorer, SummaryAgent
from insightv.records import Record, Score, Usage
from insightv.redact import Redactor, environment_secrets

log = logging.getLogger("insightv")
R = TypeVar("R", bound=Record)
T = TypeVar("T")

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,80}")
_MOST_BYTES = 2000


def is_ours(error: BaseException) -> bool:
    """Whether an error that a part raises passes through: a stop, an interrupt, or the cancelling of this task.

    A CancelledError that nobody asked this task for is the plugin's own; taken for ours it would end a question
    without an outcome.
    """
    if isinstance(error, asyncio.CancelledError):
        try:
            task = asyncio.current_task()
        except RuntimeError:  # there is no loop in this thread, so there was no task to cancel
            return False
        return task is not None and task.cancelling() > 0
    return isinstance(error, StopRun | KeyboardInterrupt)


@contextmanager
def boundary(
    failed: str | Callable[[str], InsightvError],
    *,
    passes: tuple[type[InsightvError], ...] = (ModelError,),
    logged: str = "",
) -> Iterator[None]:
    """Run code of a plugin: whatever it raises becomes one of insightv's errors.

    Args:
        failed: makes that error of what was raised, in words; a text is the code of a ModelError.
        passes: errors that pass as they are, beside those of `is_ours`.
        logged: what the log says before the traceback, if anything.
    """
    try:
        yield
    except passes:
        raise
    except BaseException as error:
        if is_ours(error):
            raise
        if logged:
            log.exception(logged.replace("%", "%%"))
        said = error_text(error)
        raise (ModelError(failed, said) if isinstance(failed, str) else failed(said)) from error


def is_own(part: object) -> bool:
    """Whether a part is insightv's own: what it returns was checked when it was made, and is not checked again."""
    return _of_ours(type(part))


def named(thing: Any) -> str:
    """The qualified name of a class or function; of one without a name of its own, with a digest of its code.

    The module of our own does not count: it may move, and runs are compared by these names.
    """
    name = f"{'insightv' if _of_ours(thing) else thing.__module__}.{thing.__qualname__}"
    code = getattr(thing, "__code__", None)
    if code is None or "<lambda>" not in name:
        return name
    return f"{name}:{hashlib.sha256(code.co_code + repr(code.co_consts).encode()).hexdigest()[:8]}"


def _of_ours(thing: Any) -> bool:
    package: str = thing.__module__.partition(".")[0]
    return package == "insightv"


def unfit(part: object, role: type) -> str | None:
    """What is wrong with a part's methods, as far as that can be seen without a call; None: nothing.

    Each must take the arguments of the role's own method, and be a generator where that is one.
    """
    for name, method in vars(role).items():
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        theirs, wanted = getattr(part, name), inspect.signature(method)
        parameters = list(wanted.parameters.values())[1:]
        places = [each for each in parameters if each.kind is not each.KEYWORD_ONLY]
        named = {each.name: None for each in parameters if each.kind is each.KEYWORD_ONLY}
        shown, shape = f"{type(part).__name__}.{name}()", str(wanted).replace("'", "")
        try:
            inspect.signature(theirs).bind(*places, **named)
        except TypeError as error:
            return f"{shown} does not take what {role.__name__}.{name} takes: {error}; define it as {name}{shape}"
        except ValueError:  # some callables of C have no signature
            continue
        if inspect.isasyncgenfunction(theirs) and not inspect.isasyncgenfunction(method):
            return f"{shown} has a yield, so it cannot be awaited; return the whole"
    return None


def held(thing: object) -> dict[Any, Any]:
    """What a list, tuple or dict holds, by place; of another object, its attributes."""
    if type(thing) is dict:
        return thing
    if type(thing) in (list, tuple):
        return dict(enumerate(cast("Sequence[object]", thing)))
    names = [name for kind in type(thing).__mro__ for name in _texts(getattr(kind, "__slots__", ()))]
    slots = {name: getattr(thing, name) for name in names if name != "__dict__" and hasattr(thing, name)}
    held = {**slots, **getattr(thing, "__dict__", {})}
    held.pop(MADE_WITH, None)  # what the object was made with it holds under names of its own
    return held


def _texts(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


_PARTS = (ChatModel, Generator, Scorer, ReasoningAgent, SummaryAgent)


def within(thing: object) -> bool:
    """Whether models are looked for in a value of an attribute: a model, a part, a container, an object of our own."""
    return isinstance(thing, (*_PARTS, list, tuple, dict)) or is_own(thing)


def declared_models(part: object) -> Mapping[str, ChatModel] | None:
    """The models that a part says it holds, by its `models` and `with_models`; None where it does not say."""
    models = getattr(part, "models", None)
    return models if isinstance(models, Mapping) and callable(getattr(part, "with_models", None)) else None


def models_in(part: object, depth: int = 4) -> Iterator[ChatModel]:
    """The models that a part holds, itself among them; each as often as it is held."""
    if isinstance(part, ChatModel):
        yield part
    elif (declared := declared_models(part)) is not None:
        yield from declared.values()
    elif depth:
        for value in filter(within, held(part).values()):
            yield from models_in(value, depth - 1)


async def checked(model: ChatModel, most_s: float | None = None) -> None:
    """Look whether a model can be asked, for at most `most_s` seconds.

    Raises:
        ConfigError: it cannot, or its check fails.
    """

    def failed(said: str) -> ConfigError:
        return ConfigError(f"the model {model.name!r} cannot be asked: its check {said}")

    try:
        async with asyncio.timeout(most_s):
            with boundary(lambda said: failed(f"failed: {said}"), passes=(InsightvError,)):
                await awaited("check()", model.check())
    except TimeoutError as error:
        raise failed(f"did not end within run.deadline_s = {most_s:g} s") from error


async def closed(models: Iterable[ChatModel]) -> None:
    """Close models; one that cannot be closed costs neither the others nor their results."""
    for model in models:
        try:
            with boundary("not_closed", passes=()):
                await awaited("aclose()", model.aclose())
        except ModelError as error:
            log.warning("the model %r could not be closed: %s", model.name, error, exc_info=error)


async def awaited(what: str, made: Awaitable[T]) -> T:
    """The result of a part's method, which `what` names.

    Raises:
        TypeError: it cannot be awaited.
    """
    if not inspect.isawaitable(made):
        raise TypeError(f"{what} returned {described(made)} at once; make it `async def`, without yield")
    return await made


def checked_scores(what: str, scores: object, n: int, *, own: bool = False) -> list[Score]:
    """The scores of `n` paths that `what` has given; those of our `own` scorers were checked when they were made.

    Raises:
        TypeError, ValueError: they are none.
    """
    if not isinstance(scores, list) or not all(isinstance(score, Score) for score in scores):
        raise TypeError(f"{what} must return a list of Score, got {described(scores)}")
    if len(scores) != n:
        raise ValueError(f"{what} must return one score per path: {n} paths, {len(scores)} scores")
    return [score if own and "failed" not in score.details else revalidated(score) for score in scores]


def revalidated(record: R) -> R:
    """The record checked anew, as it will be read back: `model_construct` makes records that were never checked."""
    kind = type(record)
    checked: R = kind.model_validate(dict(record))
    kind.model_validate_json(record.model_dump_json(warnings="none"))
    return checked


def described(value: object) -> str:
    """What a value is, for texts: its kind, and of a list the kinds of what it holds."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    kinds = sorted({type(item).__name__ for item in value}) if isinstance(value, list) else []
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}" + (f" of {', '.join(kinds)}" if kinds else "")


def error_text(error: BaseException, *, kind: bool = True) -> str:
    """The error in words, without secrets, that can be stored; `kind` puts its class before them."""
    try:
        text = _of_validation(error) if isinstance(error, ValidationError) else str(error)
    # `__str__` is the plugin's code as well.
    except Exception:
        text = "(an error whose text cannot be shown)"
    return stored(f"{type(error).__name__}: {text}" if kind else text)


def _of_validation(error: ValidationError) -> str:
    """What pydantic found, a clause each, without its links."""
    faults = error.errors(include_url=False, include_context=False)
    said = [f"{error.title}.{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:5]]
    return "; ".join(text.replace("Value error, ", "") for text in said)


def stored(text: object, *, lines: bool = False) -> str:
    """A text as it can be stored: without secrets and half characters, on at most 2,000 bytes, in one line or more."""
    return Redactor(environment_secrets()).clean(text if isinstance(text, str) else "", _MOST_BYTES, lines=lines)


def code_of(error: ModelError) -> str:
    """The error's code, or `backend_error` where it has none that can be counted."""
    return error.code if isinstance(error.code, str) and _CODE.fullmatch(error.code) else "backend_error"


def cost_of(error: ModelError | StopRun) -> Usage:
    """What the failed tries cost; one request where the error does not say it in our terms."""
    return error.usage if isinstance(error.usage, Usage) else Usage(requests=1)
