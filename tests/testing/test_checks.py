"""The checks for plugin authors: each kind of broken part is caught and named, and sound parts pass."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from insightv import (
    Answer,
    ChatModel,
    Completion,
    Generator,
    Message,
    ModelError,
    Question,
    ReasoningPath,
    Sampling,
    Score,
    Scorer,
    StopRun,
    SummaryAgent,
    Usage,
)
from insightv.agents.generator import ProgressiveGenerator
from insightv.agents.reasoning import ThoughtsReasoner
from insightv.agents.summary import JudgingSummary
from insightv.assess.answer import AnswerScorer
from insightv.assess.path import PathScorer
from insightv.backends.openai.factory import openai
from insightv.records import Schema
from insightv.testing import (
    ConformanceError,
    ScriptedModel,
    check_backend,
    check_generator,
    check_reasoning_agent,
    check_scorer,
    check_summary_agent,
    sample_paths,
    sample_questions,
)
from insightv.tiny.chart_steps import ChartSteps
from tests.servers.fake_openai import FakeServer

Paths = Sequence[ReasoningPath]


def words(path: ReasoningPath) -> int:
    return sum(len(step.content.split()) for step in path.steps)


def scored(*values: Any) -> list[Score]:
    return [Score.model_construct(scorer="x", value=value) for value in values]


class Honest(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return [Score(scorer="x", value=min(100, words(path))) for path in paths]


class TooFew(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return [Score(scorer="x", value=50) for path in paths if path.index != 2]


class Tuple(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return tuple(Score(scorer="x") for _ in paths)  # type: ignore[return-value]


class Dicts(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return [{"value": 50} for _ in paths]  # type: ignore[misc]


class NoScore(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return [None for _ in paths]  # type: ignore[misc]


class NotAsync(Scorer):
    def score(self, question: Question, paths: Paths) -> list[Score]:  # type: ignore[override]
        return scored(*(50.0 for _ in paths))


class Over(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return scored(*(850 for _ in paths))


class Zero(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return scored(*(0.0 for _ in paths))


class NotANumber(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return scored(*(float("nan") for _ in paths))


class Text(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return scored(*("85" for _ in paths))


class Truth(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return scored(*(True for _ in paths))


class MaybeAccepted(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return [Score.model_construct(scorer="x", value=50.0, accepted="yes") for _ in paths]


class Unkeepable(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return [Score(scorer="x", value=50, details={"path": path}) for path in paths]


class Sorts(Scorer):
    """Scores in the order of their size: right for no order of paths but one."""

    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return [Score(scorer="x", value=min(100, n)) for n in sorted(words(path) for path in paths)]


class Remembers(Scorer):
    def __init__(self) -> None:
        self.seen: set[str] = set()

    async def score(self, question: Question, paths: Paths) -> list[Score]:
        again = question.id in self.seen
        self.seen.add(question.id)
        return [Score(scorer="x", value=1 if again else 100) for _ in paths]


class RemembersInItsClass(Scorer):
    most = 0

    async def score(self, question: Question, paths: Paths) -> list[Score]:
        kind = type(self)
        kind.most += 1
        return [Score(scorer="x", value=min(100, kind.most)) for _ in paths]


class MixesUpConcurrentCalls(Scorer):
    question: Question

    async def score(self, question: Question, paths: Paths) -> list[Score]:
        self.question = question
        await asyncio.sleep(0)
        return [Score(scorer="x", value=min(100, len(self.question.question))) for _ in paths]


class ChangesMeta(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        question.meta.setdefault("seen", []).append(len(paths))
        return [Score(scorer="x", value=50) for _ in paths]


class ChangesPath(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        object.__setattr__(paths[0], "answer", "mine")
        return [Score(scorer="x", value=50) for _ in paths]


class Sleeps(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        time.sleep(0.4)  # the fault that is to be found
        return [Score(scorer="x", value=50) for _ in paths]


class NeverEnds(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        await asyncio.Event().wait()
        return []


class Raises(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        raise KeyError("answer")


class Exits(Scorer):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        raise SystemExit(0)


BAD_SCORERS: list[tuple[type[Scorer], str]] = [
    (TooFew, "returned 3 scores; return one per path"),
    (Tuple, "returned a tuple"),
    (Dicts, "make it an insightv.Score"),
    (NoScore, "make it an insightv.Score"),
    (NotAsync, "make it `async def`"),
    (Over, "value 850; it is a number on 1..100"),
    (Zero, "value 0.0"),
    (NotANumber, "value nan"),
    (Text, "value '85'"),
    (Truth, "value True"),
    (MaybeAccepted, "accepted = 'yes'"),
    (Unkeepable, "cannot be kept as JSON"),
    (Sorts, "in reverse"),
    (Remembers, "a second time"),
    (RemembersInItsClass, "keep nothing between calls"),
    (MixesUpConcurrentCalls, "while other questions were being asked"),
    (ChangesMeta, "changed its input: Question.meta"),
    (ChangesPath, "changed its input: ReasoningPath.answer"),
    (Raises, "raised KeyError: 'answer'"),
    (Exits, "raised SystemExit"),
]


@pytest.mark.parametrize(("scorer", "finding"), BAD_SCORERS, ids=lambda part: getattr(part, "__name__", ""))
def test_a_broken_scorer_is_caught_and_told_why(scorer: type[Scorer], finding: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_scorer(scorer, timeout_s=20)
    assert finding in str(caught.value)


def test_a_scorer_that_blocks_the_loop_or_hangs_is_caught() -> None:
    with pytest.raises(ConformanceError, match=r"held the event loop for 0\.\d\d s each time"):
        check_scorer(Sleeps)
    with pytest.raises(ConformanceError, match=r"no result within 0\.2 s"):
        check_scorer(NeverEnds, timeout_s=0.2)


def test_a_block_that_can_never_be_interrupted_is_still_reported() -> None:
    released = threading.Event()

    class Stuck(Scorer):
        async def score(self, question: Question, paths: Paths) -> list[Score]:
            released.wait(60)  # the fault that is to be found
            return []

    began = time.monotonic()
    with pytest.raises(ConformanceError, match="cannot be interrupted"):
        check_scorer(Stuck, timeout_s=0.1)
    assert time.monotonic() - began < 30
    released.set()


def test_a_first_call_that_loads_something_may_take_its_time() -> None:
    class Loads(Honest):
        loaded = False

        async def score(self, question: Question, paths: Paths) -> list[Score]:
            if not self.loaded:
                time.sleep(0.4)  # once
                self.loaded = True
            return await super().score(question, paths)

    check_scorer(Loads)


def test_sound_scorers_pass_as_class_object_and_function() -> None:
    check_scorer(Honest, per_path=True)
    check_scorer(Honest())
    check_scorer(lambda: Honest())
    check_scorer(ChartSteps)


def test_a_check_runs_inside_a_running_loop_as_in_a_notebook() -> None:
    async def cell() -> None:
        check_scorer(Honest)

    asyncio.run(cell())


def test_per_path_scores_must_not_depend_on_the_others() -> None:
    class Ranks(Scorer):
        async def score(self, question: Question, paths: Paths) -> list[Score]:
            most = max(words(path) for path in paths)
            return [Score(scorer="x", value=max(1, 100 * words(path) / most)) for path in paths]

    check_scorer(Ranks)
    with pytest.raises(ConformanceError, match="alone"):
        check_scorer(Ranks, per_path=True)


class Judge(Scorer):
    """Asks its model about each path."""

    def __init__(self, model: ChatModel) -> None:
        self.model = model

    async def score(self, question: Question, paths: Paths) -> list[Score]:
        return list(await asyncio.gather(*(self.one(path) for path in paths)))

    async def one(self, path: ReasoningPath) -> Score:
        replies = await self.model.chat([Message(role="user", content=str(path.answer))], Sampling())
        return Score(scorer="x", value=float(json.loads(replies[0].text)["score"]))


class GuessesOnError(Judge):
    async def one(self, path: ReasoningPath) -> Score:
        try:
            return await super().one(path)
        except ModelError:
            return Score(scorer="x", value=1, accepted=False)


class SwallowsEverything(Judge):
    async def one(self, path: ReasoningPath) -> Score:
        try:
            return await super().one(path)
        except Exception:
            return Score(scorer="x", reason="no reply")


class Wraps(Judge):
    async def score(self, question: Question, paths: Paths) -> list[Score]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.one(path)) for path in paths]
        return [task.result() for task in tasks]


class Translates(Judge):
    async def one(self, path: ReasoningPath) -> Score:
        try:
            return await super().one(path)
        except ModelError as error:
            raise RuntimeError("judge is down") from error


class WillNotStop(Judge):
    async def one(self, path: ReasoningPath) -> Score:
        while True:
            try:
                return await super().one(path)
            except asyncio.CancelledError:
                continue


@pytest.mark.parametrize(
    ("scorer", "finding"),
    [
        (GuessesOnError, "and [(1.0, False)] came out"),
        (SwallowsEverything, "never catch StopRun"),
        (Wraps, "ExceptionGroup came out"),
        (Translates, "RuntimeError came out"),
        (WillNotStop, "after it was cancelled"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_a_scorer_that_hides_its_models_faults_is_caught(scorer: type[Judge], finding: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_scorer(scorer, model=ScriptedModel('{"score": 70}'))
    assert finding in str(caught.value)


def test_scorers_with_a_model_that_keep_the_contract_pass() -> None:
    check_scorer(Judge, model=ScriptedModel('{"score": 70}'))
    verdict = ScriptedModel('{"correct": true, "reason": "same"}')
    questions = [
        Question(id="a", question="What is this?", answer="a dog in the park"),
        Question(id="b", question="What is it for?", answer="to keep the rain out"),
    ]
    check_scorer(AnswerScorer, model=verdict, questions=questions)
    check_scorer(PathScorer, model=ScriptedModel(path_scores))


def path_scores(messages: Sequence[Message], schema: Schema | None) -> str:
    """A reply for as many paths as the judge was shown."""
    shown = max(n for n in range(1, 5) if f"PATH {n}" in str(messages).upper())
    rows = [
        {"path": n, "logic": 70, "grounding": 70, "completeness": 70, "score": 70, "first_error": None}
        for n in range(1, shown + 1)
    ]
    return json.dumps({"scores": rows})


def test_misuse_is_told_apart_from_faults() -> None:
    with pytest.raises(ConformanceError, match="the model was never asked"):
        check_scorer(lambda model: Honest(), model=ScriptedModel("x"))
    with pytest.raises(ConformanceError, match="needs a model"):
        check_scorer(Judge)
    with pytest.raises(ConformanceError, match="has no parameter `model`"):
        check_scorer(Honest, model=ScriptedModel("x"))
    with pytest.raises(ConformanceError, match="made a str, which is not a Scorer"):
        check_scorer(lambda: "x")  # type: ignore[arg-type, return-value]
    with pytest.raises(ConformanceError, match="neither a Scorer nor"):
        check_scorer("x")  # type: ignore[arg-type]


class Talks(ChatModel):
    """A sound backend: its reply follows from the call alone."""

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        await asyncio.sleep(0.001)
        text = '{"answer": "yes"}' if schema else f"{messages[-1].parts[-1]!s:.20} {sampling.seed}"
        return self.replies(text, n)

    def replies(self, text: str, n: int) -> list[Completion]:
        spent = Usage(prompt_tokens=9, completion_tokens=2, requests=1)
        return [Completion(text=text, usage=Usage() if i else spent) for i in range(n)]


class TooMany(Talks):
    def replies(self, text: str, n: int) -> list[Completion]:
        return super().replies(text, n + 1)


class Silent(Talks):
    def replies(self, text: str, n: int) -> list[Completion]:
        return []


class One(Talks):
    def replies(self, text: str, n: int) -> list[Completion]:
        return super().replies(text, n)[0]  # type: ignore[return-value]


class Strings(Talks):
    def replies(self, text: str, n: int) -> list[Completion]:
        return [text]  # type: ignore[list-item]


class OddFinish(Talks):
    def replies(self, text: str, n: int) -> list[Completion]:
        usage = Usage(requests=1)
        return [Completion.model_construct(text=text, finish="content_filter", usage=usage, call=None)]


class NoText(Talks):
    def replies(self, text: str, n: int) -> list[Completion]:
        return [Completion.model_construct(text=None, usage=Usage(requests=1))]


class Negative(Talks):
    def replies(self, text: str, n: int) -> list[Completion]:
        return [Completion(text=text, usage=Usage.model_construct(prompt_tokens=-5, requests=1))]


class MoreCachedThanAsked(Talks):
    def replies(self, text: str, n: int) -> list[Completion]:
        return [Completion(text=text, usage=Usage(prompt_tokens=5, cached_tokens=9, requests=1))]


class CountsTwice(Talks):
    def replies(self, text: str, n: int) -> list[Completion]:
        return [Completion(text=text, usage=Usage(prompt_tokens=9, requests=1))] * n


class CountsNothing(Talks):
    def replies(self, text: str, n: int) -> list[Completion]:
        return [Completion(text=text)]


class Counts(Talks):
    number = itertools.count()

    def replies(self, text: str, n: int) -> list[Completion]:
        return super().replies(f"{text} {next(self.number)}", n)


class SharesItsPrompt(Talks):
    async def chat(self, messages: Sequence[Message], sampling: Sampling, **options: Any) -> list[Completion]:
        self.messages = messages
        await asyncio.sleep(0.001)
        return await super().chat(self.messages, sampling, **options)


class Appends(Talks):
    async def chat(self, messages: Any, sampling: Sampling, **options: Any) -> list[Completion]:
        messages.append(messages[-1])
        return await super().chat(messages, sampling, **options)


class KeepsExtra(Talks):
    async def chat(self, messages: Any, sampling: Sampling, **options: Any) -> list[Completion]:
        sampling.extra["seed"] = 1
        return await super().chat(messages, sampling, **options)


class Blocks(Talks):
    async def chat(self, messages: Any, sampling: Sampling, **options: Any) -> list[Completion]:
        time.sleep(0.4)  # the fault that is to be found
        return await super().chat(messages, sampling, **options)


class Plain(Talks):
    async def chat(self, messages: Any, sampling: Sampling, **options: Any) -> list[Completion]:
        raise ConnectionError("refused")


class TextOnly(Talks):
    async def chat(self, messages: Any, sampling: Sampling, **options: Any) -> list[Completion]:
        if not all(isinstance(message.content, str) for message in messages):
            raise ModelError("bad_request", "pictures are not supported")
        return await super().chat(messages, sampling, **options)


class Uncancellable(Talks):
    async def chat(self, messages: Any, sampling: Sampling, **options: Any) -> list[Completion]:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            await asyncio.sleep(8)
        return await super().chat(messages, sampling, **options)


class DropsPieces(Talks):
    async def stream(self, *args: Any, **options: Any) -> AsyncIterator[str | Completion]:
        whole = (await self.chat(*args, **options))[0]
        yield whole.text[1:]
        yield whole


class NeverConcludes(Talks):
    async def stream(self, *args: Any, **options: Any) -> AsyncIterator[str | Completion]:
        yield (await self.chat(*args, **options))[0].text


class ClosesOnce(Talks):
    open = True

    async def aclose(self) -> None:
        if not self.open:
            raise RuntimeError("already closed")
        self.open = False


@pytest.mark.parametrize(
    ("backend", "finding"),
    [
        (TooMany, "returned 2 replies; return 1..1"),
        (Silent, "returned 0 replies"),
        (One, "returned a Completion"),
        (Strings, "make it an insightv.Completion"),
        (OddFinish, "a Completion that is none"),
        (NoText, "a Completion that is none"),
        (Negative, "a Completion that is none"),
        (MoreCachedThanAsked, "cached_tokens are a part"),
        (CountsTwice, "usage on reply 2..3"),
        (CountsNothing, "usage.requests is 0"),
        (Counts, "at the same time; a reply depends on"),
        (SharesItsPrompt, "at the same time; a reply depends on"),
        (Appends, "changed the list of messages from 1 to 2"),
        (KeepsExtra, "changed its input: Sampling.extra"),
        (Blocks, "held the event loop"),
        (Plain, "raised ConnectionError: refused"),
        (TextOnly, "two pictures between texts raised ModelError"),
        (Uncancellable, "after it was cancelled"),
        (DropsPieces, "in pieces, but"),
        (NeverConcludes, "then one Completion at the end"),
        (ClosesOnce, "aclose() a second time raised RuntimeError"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_a_broken_backend_is_caught_and_told_why(backend: type[ChatModel], finding: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_backend(backend, deterministic=True)
    assert finding in str(caught.value)


def test_a_sound_backend_passes() -> None:
    check_backend(Talks, deterministic=True, structured=True)
    check_backend(ScriptedModel('{"answer": "yes"}'), structured=True)
    check_backend(TextOnly, images=False)
    with pytest.raises(ConformanceError, match="which is not JSON"):
        check_backend(ScriptedModel("yes"), structured=True)


def test_a_broken_server_must_end_in_a_model_error() -> None:
    down = ModelError("connection", "closed port")
    check_backend(Talks, broken=lambda: ScriptedModel([down]))
    with pytest.raises(ConformanceError, match="a failure is never a reply"):
        check_backend(Talks, broken=lambda: ScriptedModel("sorry, an error occurred"))
    with pytest.raises(ConformanceError, match="the broken backend raised ConnectionError"):
        check_backend(Talks, broken=Plain)


def test_the_http_backend_keeps_its_contract() -> None:
    with FakeServer() as server:
        check_backend(
            lambda: openai("fake", base_url=server.base_url),
            deterministic=True,
            broken=lambda: openai("fake", base_url="http://127.0.0.1:9/v1", deadline_s=0.5),
        )


def steps(messages: Sequence[Message], schema: Schema | None) -> str:
    """What a model says that follows the wire protocol."""
    if schema is None:
        return "<thoughts>\n### Look\nThere are bars.\n### Conclude\nSo it is two.\n</thoughts>"
    if schema.name == "final_answer":
        return '{"answer": "2"}'
    turn = sum(message.role == "assistant" for message in messages)
    content = "The last one is tallest, hence 2." if turn else "There are three bars."
    return json.dumps({"title": f"{turn}", "content": content, "action": "summary" if turn else "continue"})


def test_the_built_in_roles_keep_their_contracts() -> None:
    check_generator(ProgressiveGenerator, model=ScriptedModel(steps))
    check_generator(lambda model: ProgressiveGenerator(model, tries=1), model=ScriptedModel("nothing of use"))
    check_reasoning_agent(ThoughtsReasoner, model=ScriptedModel(steps))
    check_summary_agent(JudgingSummary, model=ScriptedModel("2"))


class OneShort(Generator):
    async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
        return sample_paths(question)[: n - 1]


class Headless(Generator):
    async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
        return [path.model_copy(update={"answer": None}) for path in sample_paths(question)[:n]]


class Uncoded(Generator):
    async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
        return [path.model_copy(update={"status": "failed"}) for path in sample_paths(question)[:n]]


class Backwards(Generator):
    async def generate(self, question: Question, n: int, *, seed: int = 0) -> list[ReasoningPath]:
        return sample_paths(question)[:n][::-1]


@pytest.mark.parametrize(
    ("generator", "finding"),
    [
        (OneShort, "returned 2 paths"),
        (Headless, "without an answer; reject it"),
        (Uncoded, "have a code"),
        (Backwards, "at place 0"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_a_broken_generator_is_caught(generator: type[Generator], finding: str) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_generator(generator)
    assert finding in str(caught.value)


def test_an_answer_made_up_after_a_fault_is_caught() -> None:
    class Shrugs(SummaryAgent):
        def __init__(self, model: ChatModel) -> None:
            self.model = model

        async def summarize(self, question: Question, path: ReasoningPath) -> Answer:
            try:
                replies = await self.model.chat([Message(role="user", content=question.text)], Sampling())
            except ModelError:
                return Answer(text="I don't know")
            return Answer(text=replies[0].text)

    with pytest.raises(ConformanceError, match="nothing is made up"):
        check_summary_agent(Shrugs, model=ScriptedModel("2"))


Script = Callable[[Sequence[Message], Schema | None], str]


def test_the_scripted_model_says_what_it_is_told_to() -> None:
    async def ask(model: ScriptedModel, times: int) -> list[str]:
        said = []
        for _ in range(times):
            replies = await model.chat([Message(role="user", content="?")], Sampling(), n=2)
            said.append(replies[0].text)
        return said

    assert asyncio.run(ask(ScriptedModel("a"), 2)) == ["a", "a"]
    listed = ScriptedModel(["a", Completion(text="b", finish="length")])
    assert asyncio.run(ask(listed, 2)) == ["a", "b"]
    assert [asked.n for asked in listed.asked] == [2, 2]
    with pytest.raises(LookupError, match="call 3, but the script has 2 replies"):
        asyncio.run(ask(listed, 1))
    with pytest.raises(StopRun):
        asyncio.run(ask(ScriptedModel([StopRun("stop")]), 1))


def test_samples_are_records_as_roles_get_them() -> None:
    questions = sample_questions()
    assert len({question.id for question in questions}) == len(questions)
    for question in questions:
        assert question.pictures
        assert [path.index for path in sample_paths(question)] == [0, 1, 2, 3]
        assert all(path.status == "ok" and path.answer for path in sample_paths(question))
