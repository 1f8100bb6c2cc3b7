"""What holds for every role: the same result for the same question, and honest ends where its model fails."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from insightv.errors import KeyRefused, ModelError, StopRun
from insightv.interfaces import ChatModel
from insightv.records import Question, ReasoningPath
from insightv.testing.running import (
    ConformanceError,
    Limits,
    WatchedModel,
    called,
    ends_when_cancelled,
    made,
    run_checks,
    snapshot,
    unchanged,
)

R = TypeVar("R")
T = TypeVar("T")
Case = tuple[Question, tuple[ReasoningPath, ...]]
"""What a role is asked: a question, and the paths that are given with it."""
_STOP = KeyRefused("the server refused the key (raised by insightv.testing)")
_FAULT = ModelError("connection", "the server cannot be reached (raised by insightv.testing)")
_CLAIM_NOTHING = (
    'let it through, or return what claims nothing (a path that is "failed" with the error\'s code, a score with None '
    "for value and accepted): nothing is made up"
)


@dataclass(frozen=True, kw_only=True)
class RoleChecks(Generic[R, T]):
    """The checks that all roles share.

    `ask` calls the part; `read` checks what it returned and gives what is compared, by `alike`; `honest` says of that
    that it claims nothing.
    """

    given: object
    role: type[R]
    call: str
    ask: Callable[[R, Case], Awaitable[Any]]
    read: Callable[[str, Case, Any], T]
    honest: Callable[[T], bool]
    alike: Callable[[T, T], bool] = operator.eq
    limits: Limits

    def run(
        self,
        model: ChatModel | None,
        cases: Sequence[Case],
        faulty: Sequence[Case] = (),
        more: Callable[[R, T], Awaitable[None]] | None = None,
    ) -> None:
        """Check everything: the `cases`, `more` of the first, and with a model these and the `faulty` where it fails.

        Raises:
            ConformanceError: with what is wrong, the value and the cure.
        """
        watched = WatchedModel(model) if model is not None else None

        async def checks() -> None:
            part = made(self.given, self.role, watched)
            first = await self._steady(part, cases, watched)
            if more is not None:
                await more(part, first)
            if watched is not None:
                await self._faults(watched, [*faulty, *cases])

        run_checks(checks(), self.limits, self.call)

    async def one(self, part: R, case: Case) -> T:
        """The result of one call, checked."""
        what, records = self._what(case), (case[0], *case[1])
        before = snapshot(*records)
        result = await called(what, lambda: self.ask(part, case), self.limits)
        unchanged(what, before, *records)
        return self.read(what, case, result)

    async def _steady(self, part: R, cases: Sequence[Case], model: WatchedModel | None) -> T:
        """Ask alone, again, from a new part and together; the first result."""
        first = [await self.one(part, case) for case in cases]
        asked = list(zip(cases, first, strict=True))
        for case, result in asked:
            self._same(case, result, await self.one(part, case), "a second time")
        if not isinstance(self.given, self.role):
            fresh = made(self.given, self.role, model)
            for case, result in reversed(asked):
                self._same(case, result, await self.one(fresh, case), "by a new one, in another order of questions")
        together = await asyncio.gather(*(self.one(part, case) for case in cases))
        for (case, result), again in zip(asked, together, strict=True):
            self._same(case, result, again, "while other questions were being asked")
        return first[0]

    def _same(self, case: Case, result: T, again: T, when: str) -> None:
        if not self.alike(result, again):
            raise ConformanceError(
                f"{self._what(case)} gave {result!r:.400}, and {again!r:.400} {when}; keep nothing between calls that "
                "changes a result, and draw random numbers from the seed that is given, or from a fixed one"
            )

    async def _faults(self, model: WatchedModel, cases: Sequence[Case]) -> None:
        if not model.calls:
            raise ConformanceError(f"the model was never asked; give questions= for which {self.call} asks it")
        part = made(self.given, self.role, model)  # one that remembers no reply
        for case in cases:
            await self._fault(part, model, case)
        await self.one(part, cases[0])

    async def _fault(self, part: R, model: WatchedModel, case: Case) -> None:
        what = self._what(case)
        for error, through in ((_FAULT, ModelError), (_STOP, StopRun)):
            model.error, calls = error, model.calls
            raised = f"{what}: the model raised {type(error).__name__}"
            try:
                async with asyncio.timeout(self.limits.timeout_s):
                    read = self.read(what, case, await self.ask(part, case))
            except ConformanceError:
                raise
            except through:
                pass
            except (Exception, SystemExit) as found:
                raise ConformanceError(
                    f"{raised}, and {type(found).__name__} came out: {found}; let it through as it is "
                    "(asyncio.TaskGroup wraps it, asyncio.gather does not)"
                ) from found
            else:
                if model.calls > calls and (error is _STOP or not self.honest(read)):
                    cure = _CLAIM_NOTHING if error is _FAULT else "never catch StopRun"
                    raise ConformanceError(f"{raised}, and {read!r:.200} came out; {cure}")
        model.error, model.hang = None, True
        waiting = f"{what}, waiting for its model,"
        await ends_when_cancelled(waiting, lambda: self.ask(part, case), 0.02, self.limits)
        model.hang = False

    def _what(self, case: Case) -> str:
        question, paths = case
        return f"{self.call} of question {question.id!r}" + (f" with {len(paths)} paths" if paths else "")
