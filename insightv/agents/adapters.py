"""One role made of another: paths for building data from a reasoning agent, and a reasoning agent from a generator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import wraps
from typing import Any, get_args

from insightv.agents.generator import ProgressiveGenerator
from insightv.agents.path_codes import RejectedCode
from insightv.agents.replies.ask import closing
from insightv.agents.replies.transcript import TAGS, to_text
from insightv.concurrency import all_of
from insightv.errors import ModelError
from insightv.interfaces import Generator, ReasoningAgent, SummaryAgent
from insightv.records import AskOptions, Question, ReasoningPath, seed_of

_UNUSABLE = frozenset(("empty", "cut", "bad_characters"))


class AgentGenerator(Generator):
    """Paths from a reasoning agent, as the rounds of DPO need them of the round before.

    Args:
        agent: writes each path, with a seed of its own.
        answer_from: gives each whole path its answer; without one a path has only the answer that the agent gave it,
            none where it gave none.
    """

    def __init__(self, agent: ReasoningAgent, *, answer_from: SummaryAgent | None = None) -> None:
        self._agent = agent
        self._answer_from = answer_from

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts of both agents, by agent and name; part of a run's identity."""
        return {**prompts_of("reasoning", self._agent), **prompts_of("summary", self._answer_from)}

    async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
        """`n` paths; an agent's ModelError fails its own path only.

        Raises:
            StopRun: nothing more may be asked; the calls of the other paths are cancelled.
        """
        return await all_of([self._one(question, index, seed_of(seed, question.id, index)) for index in range(n)])

    async def _one(self, question: Question, index: int, seed: int) -> ReasoningPath:
        try:
            written = await self._agent.reason(question, seed=seed)
        except ModelError as error:
            return ReasoningPath(
                question_id=question.id,
                index=index,
                status="failed",
                code=error.code,
                detail=str(error),
                seed=seed,
                usage=error.usage,
            )
        if written.status == "ok" and not written.steps:
            raise ValueError(f"reason() returned a path that is ok and has no steps (question {question.id!r})")
        path = written.model_copy(update={"index": index, "seed": seed})
        if path.status != "ok" or self._answer_from is None:
            return path
        try:
            answer = await self._answer_from.summarize(question, path)
        except ModelError as error:
            return unanswered(path, error)
        return path.model_copy(update={"answer": answer.text, "usage": path.usage + answer.usage})


class StepReasoner(ReasoningAgent):
    """Reasons with a generator, so that a model that was never trained to write a path can reason in JSON steps."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    @property
    def prompts(self) -> dict[str, str]:
        """The generator's prompts, by name; part of a run's identity."""
        return prompts_of("generator", self._generator)

    async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
        """The generator's path; errors are the generator's."""
        return (await self._generator.generate(question, 1, seed=seed))[0]

    async def stream_reason(self, question: Question, *, seed: int = 0) -> AsyncIterator[str | ReasoningPath]:
        """The steps as text, each as it comes, then the path."""
        parts, shown = self._generator.stream(question, seed=seed), 0
        async with closing(parts):
            async for part in parts:
                steps = part.steps[shown:] if isinstance(part, ReasoningPath) else (part,)
                for step in steps:
                    body = to_text((step,)).removeprefix(TAGS[0]).removesuffix(TAGS[1])
                    yield body.removesuffix("\n") if shown else TAGS[0] + body.removesuffix("\n")
                    shown += 1
                if isinstance(part, ReasoningPath):
                    if shown:
                        yield "\n" + TAGS[1]
                    yield part

    def within(self, options: AskOptions) -> StepReasoner:
        """See `ReasoningAgent.within`."""
        return StepReasoner(self._generator.within(options))


@wraps(ProgressiveGenerator, assigned=(), updated=())
def stepwise(*args: Any, **options: Any) -> StepReasoner:
    """A reasoning agent that goes through JSON steps; takes what `ProgressiveGenerator` takes."""
    return StepReasoner(ProgressiveGenerator(*args, **options))


def unanswered(path: ReasoningPath, error: ModelError) -> ReasoningPath:
    """A path without the answer it should have: rejected where the replies were unusable, failed where none came."""
    rejected = error.code in get_args(RejectedCode) or error.code in _UNUSABLE
    return path.model_copy(
        update={
            "status": "rejected" if rejected else "failed",
            "code": "unparsable" if error.code in _UNUSABLE else error.code,
            "detail": str(error),
            "usage": path.usage + error.usage,
        }
    )


def prompts_of(role: str, owner: object) -> dict[str, str]:
    """The prompts of a role, if it tells them, named after it."""
    prompts = getattr(owner, "prompts", None)
    return {f"{role}.{name}": text for name, text in prompts.items()} if isinstance(prompts, Mapping) else {}
