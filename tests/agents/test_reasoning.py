import asyncio
import inspect

import pytest

from insightv.agents.adapters import AgentGenerator, StepReasoner, stepwise
from insightv.agents.generator import ProgressiveGenerator
from insightv.agents.reasoning import ThoughtsReasoner
from insightv.agents.replies.transcript import to_text
from insightv.agents.summary import JudgingSummary
from insightv.errors import ConfigError, KeyRefused, ModelError
from insightv.interfaces import ReasoningAgent
from insightv.records import Completion, Question, ReasoningPath, Step, Usage, seed_of
from tests.agents.fakes import QUESTION, Call, FakeModel, Reply, cut, pieces_of, refused, walks

TEXT = "<thoughts>\n### Look\nRed is 5.\n\n### Conclude\nRed is tallest.\n</thoughts>"
STEPS = (
    Step(title="Look", content="Red is 5.", action="continue"),
    Step(title="Conclude", content="Red is tallest.", action="summary"),
)


def reason(model: FakeModel, seed: int = 0, **options: object) -> ReasoningPath:
    return asyncio.run(ThoughtsReasoner(model, **options).reason(QUESTION, seed=seed))  # type: ignore[arg-type]


def test_one_reply_is_the_whole_path() -> None:
    model = FakeModel(lambda call: TEXT)
    path = reason(model, seed=5)
    assert (path.status, path.steps, path.answer) == ("ok", STEPS, None)
    assert (path.model, path.seed, path.index, path.calls) == ("fake/model", 5, 0, ("key1",))
    assert model.calls[0].schema is None
    assert model.calls[0].messages[1].content == (QUESTION.pictures[0], QUESTION.text)
    sampling = model.calls[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.2, 0.95, 4096)


def test_an_unusable_reply_is_asked_for_again_with_the_same_messages() -> None:
    replies = iter(["Red.", TEXT.removesuffix("</thoughts>"), TEXT])
    model = FakeModel(lambda call: next(replies))
    path = reason(model)
    assert path.status == "ok"
    assert [call.messages for call in model.calls] == [model.calls[0].messages] * 3
    assert [call.sampling.seed for call in model.calls] == [seed_of(0, "q1", 0, 0, t) for t in range(3)]
    assert path.usage.requests == 3
    assert path.calls == ("key3",)


@pytest.mark.parametrize(
    ("reply", "code", "calls", "steps"),
    [
        ("Red.", "unparsable", 3, 0),
        ("", "unparsable", 3, 0),
        (TEXT.removesuffix("</thoughts>"), "unparsable", 3, 0),
        (TEXT + TEXT, "unparsable", 3, 0),
        (cut("<thoughts>\n### Look\nRed is 5.\n### Conclude\nRed is"), "truncated", 3, 1),
        (cut("<thoughts>\n### Look\nRed is"), "truncated", 3, 0),
        (cut("Let me"), "truncated", 3, 0),
        (cut(""), "truncated", 3, 0),
        (refused(), "refusal", 1, 0),
        (refused(TEXT), "refusal", 1, 0),
    ],
)
def test_what_cannot_be_used_ends_the_path_with_a_code(reply: Reply, code: str, calls: int, steps: int) -> None:
    model = FakeModel(lambda call: reply)
    path = reason(model)
    assert (path.status, path.code) == ("rejected", code)
    assert path.steps == STEPS[:steps]
    assert len(model.calls) == calls


def test_a_model_error_fails_the_path() -> None:
    path = reason(FakeModel(lambda call: ModelError("timeout", "no reply in 60 s", usage=Usage(requests=2))))
    assert (path.status, path.code, path.usage.requests) == ("failed", "timeout", 2)
    assert "60 s" in path.detail


def test_a_stop_goes_through() -> None:
    with pytest.raises(KeyRefused):
        reason(FakeModel(lambda call: KeyRefused("401")))


def test_a_stream_is_the_text_and_then_the_path() -> None:
    model = FakeModel(lambda call: TEXT)
    *pieces, path = asyncio.run(pieces_of(ThoughtsReasoner(model).stream_reason(QUESTION, seed=5)))
    assert len(pieces) > 2
    assert "".join(str(piece) for piece in pieces) == TEXT
    assert path == reason(FakeModel(lambda call: TEXT), seed=5)
    assert model.closed_streams == 1


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        ("Red.", "rejected", "unparsable"),
        (cut("<thoughts>\n### Look\nRed is 5.\n### Con"), "rejected", "truncated"),
        (refused(), "rejected", "refusal"),
        (ModelError("timeout", "no reply"), "failed", "timeout"),
    ],
)
def test_a_stream_has_one_try(reply: Reply, status: str, code: str) -> None:
    model = FakeModel(lambda call: reply)
    path = asyncio.run(pieces_of(ThoughtsReasoner(model).stream_reason(QUESTION)))[-1]
    assert isinstance(path, ReasoningPath)
    assert (path.status, path.code) == (status, code)
    assert len(model.calls) == 1


def test_a_stream_that_is_left_early_ends_its_call() -> None:
    async def leave(model: FakeModel) -> None:
        stream = ThoughtsReasoner(model).stream_reason(QUESTION)
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]  # an async generator behind the interface

    model = FakeModel(lambda call: TEXT)
    asyncio.run(leave(model))
    assert model.closed_streams == 1


def test_other_tags() -> None:
    text = TEXT.replace("<thoughts>", "[r]").replace("</thoughts>", "[/r]")
    assert reason(FakeModel(lambda call: text), tags=["[r]", "[/r]"]).steps == STEPS
    with pytest.raises(ConfigError, match="tags"):
        reason(FakeModel(lambda call: text), tags=["[r]"])


# --- adapters ---------------------------------------------------------------------------------------------------------


def generate(agent: ReasoningAgent, n: int, summary: JudgingSummary | None = None) -> list[ReasoningPath]:
    return asyncio.run(AgentGenerator(agent, answer_from=summary).generate(QUESTION, n, seed=3))


def test_an_agent_as_a_generator_writes_paths_with_seeds_of_their_own() -> None:
    model = FakeModel(lambda call: TEXT)
    paths = generate(ThoughtsReasoner(model), 3)
    assert [path.index for path in paths] == [0, 1, 2]
    assert [path.seed for path in paths] == [seed_of(3, "q1", i) for i in range(3)]
    assert {path.status for path in paths} == {"ok"}
    assert {path.answer for path in paths} == {None}
    assert len({call.sampling.seed for call in model.calls}) == 3


def test_a_summary_agent_answers_each_whole_path() -> None:
    writer = FakeModel(lambda call: TEXT if call.sampling.seed in good else "Red.", name="a")
    good = {seed_of(seed_of(3, "q1", i), "q1", 0, 0, 0) for i in (0, 2)}
    answerer = FakeModel(lambda call: "A", name="b")
    paths = generate(ThoughtsReasoner(writer), 3, JudgingSummary(answerer))
    assert [(path.status, path.answer) for path in paths] == [("ok", "A"), ("rejected", None), ("ok", "A")]
    assert len(answerer.calls) == 2
    assert len({call.sampling.seed for call in answerer.calls}) == 2
    assert [path.usage.requests for path in paths] == [2, 3, 2]


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (refused(), "rejected", "refusal"),
        (cut("The"), "rejected", "truncated"),
        ("  ", "rejected", "unparsable"),
        (ModelError("timeout", "no reply"), "failed", "timeout"),
    ],
)
def test_a_path_that_is_not_answered_has_no_answer(reply: Reply, status: str, code: str) -> None:
    (path,) = generate(ThoughtsReasoner(FakeModel(lambda call: TEXT)), 1, JudgingSummary(FakeModel(lambda call: reply)))
    assert (path.status, path.code, path.answer, path.steps) == (status, code, None, STEPS)


def test_a_strangers_agent_that_raises_fails_its_own_path_only() -> None:
    class Odd(ReasoningAgent):
        async def reason(self, question: Question, *, seed: int = 0) -> ReasoningPath:
            if seed == seed_of(3, "q1", 1):
                raise ModelError("server_error", "500")
            return ReasoningPath(question_id=question.id, index=0, status="ok", steps=STEPS, answer="A")

    paths = generate(Odd(), 3)
    assert [(path.index, path.status, path.code) for path in paths] == [
        (0, "ok", None),
        (1, "failed", "server_error"),
        (2, "ok", None),
    ]
    assert [path.answer for path in paths] == ["A", None, "A"]


def test_a_generator_as_an_agent() -> None:
    model = FakeModel(walks(3))
    path = asyncio.run(StepReasoner(ProgressiveGenerator(model)).reason(QUESTION, seed=9))
    assert (path.status, path.answer, len(path.steps)) == ("ok", "B", 3)
    assert model.calls[0].sampling.seed == seed_of(9, "q1", 0, 0, 0)


def test_a_generator_as_an_agent_streams_its_steps_as_text() -> None:
    agent = stepwise(FakeModel(walks(2)), min_steps=2)
    *texts, path = asyncio.run(pieces_of(agent.stream_reason(QUESTION)))
    assert isinstance(path, ReasoningPath)
    assert "".join(map(str, texts)) == to_text(path)
    assert [f"### {step.title}" in str(text) for step, text in zip(path.steps, texts, strict=False)] == [True, True]
    assert list(inspect.signature(stepwise).parameters) == list(inspect.signature(ProgressiveGenerator).parameters)


def test_a_stop_of_one_path_stops_all() -> None:
    async def script(call: Call) -> Reply:
        if call.sampling.seed == seed_of(seed_of(3, "q1", 1), "q1", 0, 0, 0):
            return KeyRefused("401")
        await asyncio.sleep(60)
        return Completion(text=TEXT)

    with pytest.raises(KeyRefused):
        generate(ThoughtsReasoner(FakeModel(script)), 3)
