import asyncio
from collections import Counter
from typing import Any

import pytest

from insightv.agents.generator import ProgressiveGenerator
from insightv.errors import ConfigError, KeyRefused, ModelError, StopRun
from insightv.records import Completion, Message, Question, ReasoningPath, Usage, seed_of
from tests.agents.fakes import QUESTION, Call, FakeModel, Reply, Script, cut, final, refused, step, walks


def generate(model: FakeModel, n: int = 1, seed: int = 0, **options: Any) -> list[ReasoningPath]:
    generator = ProgressiveGenerator(model, **options)
    return asyncio.run(generator.generate(QUESTION, n, seed=seed))


def one(script: Script, **options: Any) -> tuple[ReasoningPath, FakeModel]:
    model = FakeModel(script)
    return generate(model, **options)[0], model


def test_paths_are_whole_and_in_order() -> None:
    model = FakeModel(walks(3))
    paths = generate(model, 4)
    assert [path.index for path in paths] == [0, 1, 2, 3]
    assert {path.status for path in paths} == {"ok"}
    assert {path.question_id for path in paths} == {"q1"}
    assert {path.model for path in paths} == {"fake/model"}
    for path in paths:
        assert [s.action for s in path.steps] == ["continue", "continue", "summary"]
        assert path.answer == "B"
        assert path.code is None
        assert path.flags == ()
        assert path.seed == seed_of(0, "q1", path.index)


def test_the_first_step_of_all_paths_is_one_request() -> None:
    model = FakeModel(walks(3))
    generate(model, 4)
    assert [call.n for call in model.calls if not call.said] == [4]
    assert Counter(call.schema for call in model.calls) == {"reasoning_step": 1 + 4 * 2, "final_answer": 4}


def test_paths_that_a_backend_did_not_draw_are_asked_for_singly() -> None:
    model = FakeModel(walks(2), draws=2)
    paths = generate(model, 5)
    assert [path.status for path in paths] == ["ok"] * 5
    first = [call for call in model.calls if not call.said]
    assert [call.n for call in first] == [5, 1, 1, 1]
    assert len({call.sampling.seed for call in first}) == 4
    assert len({path.steps[0].content for path in paths[1:]}) == 4


def test_apart_lets_the_first_path_lead() -> None:
    begun: list[int] = []
    ended: list[int] = []

    async def script(call: Call) -> Reply:
        if not call.said:
            begun.append(call.sampling.seed)
            if len(begun) > 1:
                assert ended, "the others wait for the first path's first step"
            await asyncio.sleep(0.01)
            ended.append(call.sampling.seed)
        return walks(2)(call)

    model = FakeModel(script)
    paths = generate(model, 3, first_step="apart")
    assert [path.status for path in paths] == ["ok"] * 3
    assert [call.n for call in model.calls] == [1] * len(model.calls)
    assert begun == [seed_of(0, "q1", i, 0, 0) for i in range(3)]


def test_apart_goes_on_when_the_leader_fails() -> None:
    def script(call: Call) -> Reply:
        if call.sampling.seed == seed_of(0, "q1", 0, 0, 0):
            return ModelError("timeout", "no reply in 60 s")
        return walks(2)(call)

    paths = generate(FakeModel(script), 3, first_step="apart")
    assert [(path.status, path.code) for path in paths] == [("failed", "timeout"), ("ok", None), ("ok", None)]


def test_every_call_begins_with_the_messages_of_the_one_before() -> None:
    model = FakeModel(walks(4))
    generate(model, 1)
    for before, after in zip(model.calls, model.calls[1:], strict=False):
        assert after.messages[: len(before.messages)] == before.messages
        assert all(x is y for x, y in zip(before.messages, after.messages, strict=False)), "encodings are kept"
        assert [m.role for m in after.messages[len(before.messages) :]] == ["assistant", "user"]
    assert [m.role for m in model.calls[0].messages] == ["system", "user"]


def test_all_paths_and_steps_share_the_messages_they_have_in_common() -> None:
    model = FakeModel(walks(4))
    generate(model, 3)
    chains = [call.messages for call in model.calls]
    assert len({id(messages[0]) for messages in chains}) == 1
    assert len({id(messages[1]) for messages in chains}) == 1, "the pictures are encoded once"
    following = {id(m) for messages in chains for m in messages[3:] if m.role == "user"}
    assert len(following) == 2, "one message for every next step, one for every final answer"


def test_a_kept_reply_goes_back_byte_for_byte() -> None:
    odd = '  ```json\n{"title":"A",\n "content":"B\\u00e4r", "action":"CONTINUE"}\n```  '

    def script(call: Call) -> Reply:
        if call.schema == "final_answer":
            return final("A")
        return step("Done.", "summary") if call.said else odd

    path, model = one(script)
    assert model.calls[1].said == [odd]
    assert path.steps[0].content == "B\u00e4r"
    assert path.flags == ("read:fence",)


def test_the_first_user_message_is_pictures_then_question() -> None:
    _, model = one(walks(2))
    user = model.calls[0].messages[1]
    assert user.content == (QUESTION.pictures[0], "Which bar is tallest?\n(A) red\n(B) blue")


def test_seeds_are_a_function_of_run_question_path_step_and_try() -> None:
    bad = {1: 2, 2: 1}  # unusable replies before each step's good one

    def script(call: Call) -> Reply:
        number = len(call.said) + 1
        tried[number] += 1
        if tried[number] <= bad.get(number, 0):
            return "no JSON"
        return walks(2)(call)

    tried: Counter[int] = Counter()
    _, model = one(script, seed=7)
    expected = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]
    assert [call.sampling.seed for call in model.calls] == [seed_of(7, "q1", 0, s, t) for s, t in expected]


def test_the_same_seed_asks_the_same_and_another_does_not() -> None:
    runs = []
    for seed in (1, 1, 2):
        model = FakeModel(walks(2))
        generate(model, 3, seed=seed)
        runs.append(sorted((call.sampling.seed, len(call.said)) for call in model.calls))
    assert runs[0] == runs[1] != runs[2]


def test_failed_tries_never_enter_the_chain_and_cost_what_they_cost() -> None:
    def script(call: Call) -> Reply:
        if call.sampling.seed in good:
            return walks(2)(call)
        return "POISON that is no JSON"

    good = {seed_of(0, "q1", 0, s, 2) for s in range(3)}
    path, model = one(script)
    assert path.status == "ok"
    assert len(model.calls) == 9
    for call in model.calls:
        assert not any("POISON" in text for text in call.said)
    by_chain: dict[int, list[tuple[Message, ...]]] = {}
    for call in model.calls:
        by_chain.setdefault(len(call.said), []).append(call.messages)
    assert all(len(set(map(len, chain))) == 1 and chain[0] == chain[1] == chain[2] for chain in by_chain.values())
    assert path.usage.requests == 9
    assert path.usage.prompt_tokens == 90
    assert path.calls == ("key3", "key6", "key9")


@pytest.mark.parametrize(
    ("bad", "code", "calls"),
    [
        ("no JSON", "unparsable", 3),
        ("", "unparsable", 3),
        (step("x", "final_answer"), "unparsable", 3),
        (step("x")[:-3], "unparsable", 3),
        (step("x") + step("y"), "unparsable", 3),
        (step("x", "summary"), "too_short", 3),
        (cut(step("x")), "truncated", 3),
        (refused(), "refusal", 1),
        (refused(step("x")), "refusal", 1),
        ("I'm sorry, but I can't assist with that.", "refusal", 3),
        ("As an AI, I cannot help with this request.", "refusal", 3),
        ("I am unable to identify the person in the image.", "refusal", 3),
        ("I cannot see the top of the bar, so I take 40.", "unparsable", 3),
        ("Sorry, the value is 40.", "unparsable", 3),
        (step("I cannot help here, the bar is hidden.").replace("continue", "stop"), "unparsable", 3),
    ],
)
def test_an_unusable_first_step_ends_the_path_with_its_code(bad: Reply, code: str, calls: int) -> None:
    path, model = one(lambda call: bad)
    assert (path.status, path.code) == ("rejected", code)
    assert (path.steps, path.answer, path.calls) == ((), None, ())
    assert len(model.calls) == calls == path.usage.requests
    assert path.detail


def test_an_unknown_action_is_named_in_the_detail() -> None:
    path, _ = one(lambda call: step("x", "final_answer"))
    assert "unknown_action" in path.detail
    assert "final_answer" in path.detail


@pytest.mark.parametrize(("bad", "code"), [("no", "unparsable"), (cut("{"), "truncated"), (refused(), "refusal")])
def test_an_unusable_final_answer_keeps_the_steps_and_makes_none_up(bad: Reply, code: str) -> None:
    path, _ = one(lambda call: bad if call.schema == "final_answer" else walks(2)(call))
    assert (path.status, path.code, path.answer) == ("rejected", code, None)
    assert len(path.steps) == 2
    assert len(path.calls) == 2


def test_tries_is_the_number_of_calls_for_one_reply_the_joint_one_included() -> None:
    model = FakeModel(lambda call: "no JSON")
    paths = generate(model, 3, tries=2)
    assert [path.code for path in paths] == ["unparsable"] * 3
    assert [call.n for call in model.calls] == [3, 1, 1, 1]


def test_an_endless_chain_ends_at_the_step_limit_without_an_answer() -> None:
    path, model = one(lambda call: step(f"Thought {len(call.said)}."), max_steps=5)
    assert (path.status, path.code, path.answer) == ("rejected", "max_steps", None)
    assert len(path.steps) == 5 == len(model.calls)
    assert {s.action for s in path.steps} == {"continue"}


def test_the_default_step_limit_is_the_papers() -> None:
    path, model = one(lambda call: step(f"Thought {len(call.said)}."))
    assert len(model.calls) == 16
    assert path.code == "max_steps"


@pytest.mark.parametrize("again", ["The red bar is 5.", "the  RED bar is 5"])
def test_the_same_step_again_ends_the_path(again: str) -> None:
    path, model = one(lambda call: step(again if call.said else "The red bar is 5.", title=f"Step {len(call.said)}"))
    assert (path.status, path.code) == ("rejected", "repetition")
    assert len(path.steps) == 1
    assert len(model.calls) == 2
    assert path.usage.requests == 2
    assert path.calls == ("key1",)


def test_a_step_of_the_same_form_about_something_else_is_no_repetition() -> None:
    path, _ = one(
        lambda call: (
            final("A")
            if call.schema == "final_answer"
            else step(
                f"Bar {len(call.said)} has the value {len(call.said) * 2}.",
                "summary" if len(call.said) == 4 else "continue",
            )
        )
    )
    assert path.status == "ok"


def test_min_steps_one_allows_a_summary_at_once() -> None:
    path, _ = one(lambda call: final("A") if call.schema else step("x"), min_steps=1, max_steps=1)
    assert path.status == "rejected"
    path, _ = one(walks(1), min_steps=1)
    assert (path.status, len(path.steps)) == ("ok", 1)


def test_a_model_error_fails_its_own_path_only() -> None:
    def script(call: Call) -> Reply:
        if call.sampling.seed == seed_of(0, "q1", 1, 1, 0):
            return ModelError("server_error", "500 after 6 tries", usage=Usage(requests=6))
        return walks(2)(call)

    paths = generate(FakeModel(script), 3)
    assert [(path.status, path.code) for path in paths] == [("ok", None), ("failed", "server_error"), ("ok", None)]
    assert len(paths[1].steps) == 1
    assert paths[1].usage.requests == 6
    assert "500 after 6 tries" in paths[1].detail


def test_a_model_error_of_the_joint_request_fails_all_and_is_paid_once() -> None:
    model = FakeModel(lambda call: ModelError("timeout", "no reply", usage=Usage(requests=2)))
    paths = generate(model, 3)
    assert [path.code for path in paths] == ["timeout"] * 3
    assert [path.usage.requests for path in paths] == [2, 0, 0]
    assert len(model.calls) == 1


def test_usage_adds_up_to_what_was_spent() -> None:
    model = FakeModel(walks(3))
    paths = generate(model, 4)
    assert sum(path.usage.requests for path in paths) == len(model.calls)
    assert sum(path.usage.prompt_tokens for path in paths) == 10 * len(model.calls)


@pytest.mark.parametrize("stop", [KeyRefused("401"), StopRun("stop"), RuntimeError("a bug")])
def test_a_stop_goes_through_as_it_is_and_cancels_the_other_paths(stop: Exception) -> None:
    cancelled: list[int] = []

    async def script(call: Call) -> Reply:
        if not call.said:
            return step(f"Thought of {call.sampling.seed}")
        if call.sampling.seed == seed_of(0, "q1", 2, 1, 0):
            await asyncio.sleep(0.01)
            return stop
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(call.sampling.seed)
            raise
        return "never"

    model = FakeModel(script)
    with pytest.raises(type(stop)) as caught:
        generate(model, 4, first_step="apart")
    assert caught.value is stop
    assert len(cancelled) == 3


def test_cancelling_the_generator_cancels_its_calls() -> None:
    cancelled = 0

    async def script(call: Call) -> Reply:
        nonlocal cancelled
        if not call.said:
            return step("First.")
        try:
            await asyncio.sleep(60)
        finally:
            cancelled += 1
        return "never"

    async def main() -> None:
        task = asyncio.create_task(ProgressiveGenerator(FakeModel(script)).generate(QUESTION, 3))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert cancelled == 3


def test_paths_go_on_at_once_and_not_in_lock_step() -> None:
    """One slow path does not hold the others: all others are done while it waits."""

    async def main() -> None:
        release = asyncio.Event()

        async def script(call: Call) -> Reply:
            if call.sampling.seed == seed_of(0, "q1", 0, 1, 0):
                await release.wait()
            if call.schema == "final_answer":
                finals.append(call.sampling.seed)
            return walks(3)(call)

        finals: list[int] = []
        task = asyncio.create_task(ProgressiveGenerator(FakeModel(script)).generate(QUESTION, 4))
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(finals) == 3
        release.set()
        assert [path.status for path in await task] == ["ok"] * 4

    asyncio.run(main())


def test_no_path_asks_for_nothing() -> None:
    model = FakeModel(walks(2))
    assert generate(model, 0) == []
    assert model.calls == []


def test_a_backend_that_returns_nothing_fails_the_path() -> None:
    model = FakeModel(walks(2), draws=0)
    paths = generate(model, 2)
    assert [(path.status, path.code) for path in paths] == [("failed", "malformed")] * 2


def test_images_that_are_not_opened_are_refused() -> None:
    question = Question(id="q", question="?", images=("chart.png",))
    with pytest.raises(ValueError, match="not opened"):
        asyncio.run(ProgressiveGenerator(FakeModel(walks(2))).generate(question, 1))


def test_the_sampling_is_the_settings() -> None:
    _, model = one(walks(2), temperature=0.3, top_p=0.5, max_tokens=77, extra={"repetition_penalty": 1.05})
    sampling = model.calls[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.3, 0.5, 77)
    assert sampling.extra == {"repetition_penalty": 1.05}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tries": 0}, "tries = 0"),
        ({"max_steps": 0}, "max_steps = 0"),
        ({"min_steps": 5, "max_steps": 4}, "min_steps = 5"),
        ({"min_steps": 0}, "min_steps = 0"),
        ({"first_step": "both"}, "'both'"),
        ({"temperature": -1.0}, "temperature = -1.0"),
        ({"top_p": 0.0}, "top_p = 0.0"),
        ({"max_tokens": 0}, "max_tokens = 0"),
        ({"temperature": float("nan")}, "temperature"),
    ],
)
def test_a_setting_out_of_range_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        generate(FakeModel(walks(2)), **options)
    assert named in str(caught.value)


def test_prompts_can_be_replaced_and_are_named() -> None:
    model = FakeModel(walks(2))
    generator = ProgressiveGenerator(model, system_prompt="S", next_prompt="N", final_prompt="F")
    assert generator.prompts == {"system": "S", "next": "N", "final": "F"}
    asyncio.run(generator.generate(QUESTION, 1))
    last = model.calls[-1].messages
    assert [str(m.content) for m in last if isinstance(m.content, str) and m.role != "assistant"] == ["S", "N", "F"]


def test_a_finish_reason_outweighs_a_text_that_reads_well() -> None:
    path, _ = one(lambda call: Completion(text=step("x"), finish="length"), tries=1)
    assert path.code == "truncated"


def test_a_message_is_not_changed_after_it_was_sent() -> None:
    model = FakeModel(walks(3))
    generate(model, 2)
    assert all(isinstance(call.messages, tuple) for call in model.calls)
    assert all(isinstance(message, Message) for call in model.calls for message in call.messages)
