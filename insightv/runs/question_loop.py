"""Building data: each open question goes through generation, scoring and banding on its own, without a barrier.

Knows the order of work and what is recorded when; knows no prompt, no model and no file format.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial

from insightv.assess.bands import band_of
from insightv.concurrency import end_all
from insightv.config.roles import Part
from insightv.config.settings import OBJECT, Settings
from insightv.errors import ModelError, StopRun
from insightv.inputs.image_error import ImageError
from insightv.interfaces import Generator, Scorer
from insightv.plugin_guard import (
    awaited,
    boundary,
    checked_scores,
    code_of,
    described,
    error_text,
    is_ours,
    is_own,
    revalidated,
)
from insightv.records import Question, ReasoningPath, Score
from insightv.runs.question_calls import QuestionCalls, question_calls
from insightv.runs.session import Session
from insightv.runs.store import (
    Progress,
    StoredQuestion,
    finish_statements,
    path_statements,
    pending,
    read_progress,
    score_statements,
)

log = logging.getLogger("insightv")
_CHUNK = 200


class QuestionLoop:
    """One build of a run, over the questions that are pending in its database; of those in `among`, if given."""

    def __init__(
        self, settings: Settings, session: Session, names: Sequence[str], among: Sequence[int] | None = None
    ) -> None:
        self._settings = settings
        self._session = session
        self._names = names
        self._among = among
        self._open = asyncio.Semaphore(2 * session.journal.gate.limit)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work until every question is done or the switch is thrown."""
        await self._session.switch.heard_by(self._feed())
        await self.wind_up()

    async def _feed(self) -> None:
        """Open questions in order, each when a slot is free that no open question waits for; wait for all to end."""
        after = 0
        while rows := await self._session.database.do(partial(pending, after=after, limit=_CHUNK, among=self._among)):
            for stored in rows:
                await self._open.acquire()
                await self._session.journal.gate.acquire(stored.seq)
                task = asyncio.create_task(self._guarded(stored))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            after = rows[-1].seq
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def wind_up(self) -> None:
        """Wait for what is under way, at most `run.grace_s` seconds, and cancel the rest."""
        ends = time.monotonic() + self._settings.run.grace_s
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.run.grace_s)
        await end_all(self._tasks)
        await self._session.journal.drain(max(0.0, ends - time.monotonic()))

    async def _guarded(self, stored: StoredQuestion) -> None:
        calls = QuestionCalls(stored.seq, holds_slot=True)
        question_calls.set(calls)
        try:
            await self._question(stored, calls)
        except StopRun as error:
            self._session.switch.stop(error)
        # Anything else is a fault of our own: it stops the run and is shown, and nothing of the question is recorded.
        except BaseException as error:
            if is_ours(error):
                raise
            log.exception("question %r", stored.question.id)
            self._session.switch.stop(error)
        finally:
            if calls.holds_slot:
                self._session.journal.gate.release()
            self._open.release()

    async def _question(self, stored: StoredQuestion, calls: QuestionCalls) -> None:
        seq, epoch = stored.seq, stored.epoch
        progress = await self._session.database.do(partial(read_progress, seq=seq, epoch=epoch))
        calls.recorded = progress.calls
        try:
            question = await self._session.opener.opened(stored)
        except ImageError as error:  # it was good when the run began
            question = stored.question
            paths = _failed(question, self._settings.generator.paths, f"image_{error.code}", str(error))
            await self._session.database.write(path_statements(seq, epoch, paths))
        else:
            paths = await self._paths(question, stored, progress, calls)
        scores = await self._scores(question, stored, progress, paths)
        bands = {
            path.index: band_of(scores[path.index], self._settings.bands.high, self._settings.bands.mid)
            for path in paths
            if path.status == "ok"
        }
        await self._session.database.write(finish_statements(seq, epoch, bands))
        self._session.tally.count(paths, bands)

    async def _paths(
        self, question: Question, stored: StoredQuestion, progress: Progress, calls: QuestionCalls
    ) -> list[ReasoningPath]:
        n = self._settings.generator.paths
        if len(progress.paths) == n:
            return progress.paths
        generator, idle_s = self._session.generator.role, self._session.generator.deadline_s
        try:
            with boundary("generator_error", logged=f"the generator failed on question {question.id!r}"):
                async with calls.never_idle(idle_s):
                    asked = generator.generate(_own(question, idle_s), n, seed=self._settings.seed)
                    made = await awaited("generate()", asked)
                paths = _checked_paths(made, question, n, generator)
        except ModelError as error:
            paths = _failed(question, n, code_of(error), error_text(error, kind=False))
        if self._session.switch.error is not None and any(path.status == "failed" for path in paths):
            raise StopRun("stopped while paths were being made")  # they did not fail, they were stopped
        await self._session.database.write(path_statements(stored.seq, stored.epoch, paths))
        return paths

    async def _scores(
        self, question: Question, stored: StoredQuestion, progress: Progress, paths: Sequence[ReasoningPath]
    ) -> dict[int, list[Score]]:
        """The scores of each path that is ok, by index; each scorer sees what no earlier one refused."""
        scores: dict[int, list[Score]] = {path.index: [] for path in paths if path.status == "ok"}
        alive = [path for path in paths if path.status == "ok"]
        for position, part in enumerate(self._session.scorers):
            if not alive:
                break
            found = progress.scores.get(position, {})
            if set(found) != {path.index for path in alive}:
                found = await self._score(question, part, position, alive)
                await self._session.database.write(score_statements(stored.seq, stored.epoch, position, found))
            for path in alive:
                scores[path.index].append(found[path.index])
            alive = [path for path in alive if found[path.index].accepted is not False]
        return scores

    async def _score(
        self, question: Question, part: Part[Scorer], position: int, paths: list[ReasoningPath]
    ) -> dict[int, Score]:
        scorer, name = part.role, self._names[position]
        try:
            async with asyncio.timeout(part.deadline_s):
                with boundary("scorer_error", logged=f"scorer {name!r} failed on question {question.id!r}"):
                    made = await awaited("score()", scorer.score(_own(question, part.deadline_s), tuple(paths)))
                    scores = _named(checked_scores("score()", made, len(paths), own=is_own(scorer)), name)
        except TimeoutError:
            scores = _unscored(name, len(paths), "timeout", f"no scores within run.deadline_s = {part.deadline_s} s")
        except ModelError as error:
            scores = _unscored(name, len(paths), code_of(error), error_text(error, kind=False))
        if self._session.switch.error is not None and any("failed" in score.details for score in scores):
            raise StopRun("stopped while paths were being scored")
        return {path.index: score for path, score in zip(paths, scores, strict=True)}


def _own(question: Question, foreign: float | None) -> Question:
    """The question as a part is given it: a plugin's part gets a copy, whose `meta` it may change."""
    return question if foreign is None else question.model_copy(deep=True)


def _failed(question: Question, n: int, code: str, detail: str) -> list[ReasoningPath]:
    return [
        ReasoningPath(question_id=question.id, index=index, status="failed", code=code, detail=detail[:2000])
        for index in range(n)
    ]


def _unscored(scorer: str, n: int, code: str, reason: str) -> list[Score]:
    return [Score(scorer=scorer, reason=reason[:2000], details={"failed": code})] * n


def _checked_paths(paths: object, question: Question, n: int, generator: Generator) -> list[ReasoningPath]:
    if not isinstance(paths, list) or not all(isinstance(path, ReasoningPath) for path in paths):
        raise TypeError(f"generate() must return a list of ReasoningPath, got {described(paths)}")
    found = [(path.question_id, path.index) for path in paths]
    if found != [(question.id, index) for index in range(n)]:
        raise ValueError(f"generate() must return the paths 0..{n - 1} of question {question.id!r}, got {found[:20]}")
    own = is_own(generator)
    for path in paths:
        if not own or path.status == "failed":  # a failure's text comes from a backend, which may be a plugin's
            revalidated(path)
        if (path.status == "ok") == (path.code is not None):
            raise ValueError(f"path {path.index} has status {path.status!r} and code {path.code!r}")
        # A system under evaluation, which is our own, may answer without any step.
        if path.status == "ok" and not (path.answer and (path.steps or own)):
            raise ValueError(f"path {path.index} is ok and lacks its steps or its answer")
    return paths


def _named(scores: list[Score], name: str) -> list[Score]:
    """The scores under the name in the settings: it decides, not what a scorer calls itself, as bands go by it."""
    if name.startswith(OBJECT):
        return scores
    return [score if score.scorer == name else score.model_copy(update={"scorer": name}) for score in scores]
