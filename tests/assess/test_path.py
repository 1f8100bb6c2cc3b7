"""The path scorer: one call, strict reading, asking again, repeats."""

from __future__ import annotations

import asyncio
import json
import random
import re
from typing import Any

import pytest

from insightv.assess.path import PathScorer as path_scorer
from insightv.errors import BudgetSpent, ConfigError, ModelError
from insightv.records import Completion, Message, Picture, Question, Score
from tests.assess.fakes import Call, FakeJudge, ask_about, entry, path_of, scores, shown

THREE = [path_of(index=i, contents=(f"alpha {name}", f"omega {name}")) for i, name in enumerate(("ann", "bob", "cid"))]


def judge(judge_model: FakeJudge, paths: list[Any] | None = None, **options: Any) -> list[Score]:
    return asyncio.run(path_scorer(judge_model, **options).score(ask_about(), THREE if paths is None else paths))


def by_name(call: Call, _: int) -> str:
    """Grades each path by the name in it."""
    worth = {"ann": 91, "bob": 55, "cid": 12}
    names = [next(name for name in worth if name in text) for text in shown(call)]
    return scores(*(entry(place, worth[name]) for place, name in enumerate(names, start=1)))


def test_all_paths_go_in_one_call_and_scores_come_back_to_their_own_paths() -> None:
    model = FakeJudge(by_name)
    result = judge(model)
    assert len(model.calls) == 1
    assert [score.value for score in result] == [91, 55, 12]
    assert all(score.accepted is True and score.scorer == "path" for score in result)
    assert result[0].details["logic"] == 70
    assert result[0].details["first_error"] is None
    call = model.calls[0]
    assert call.schema is not None
    assert call.schema.name == "path_scores"
    assert [type(part) for part in call.messages[-1].parts] == [Picture, str]
    assert ask_about().question in call.text


def test_scores_come_back_to_their_own_paths_for_any_order_of_entries_and_any_seed() -> None:
    orders = set()
    for seed in range(12):

        def mixed(call: Call, number: int, seed: int = seed) -> str:
            orders.add(tuple(re.findall("ann|bob|cid", "".join(text.split("omega")[0] for text in shown(call)))))
            entries = json.loads(by_name(call, number))["scores"]
            random.Random(seed).shuffle(entries)
            return scores(*entries)

        assert [score.value for score in judge(FakeJudge(mixed), seed=seed)] == [91, 55, 12]
    assert len(orders) > 1


def test_the_judge_sees_no_truth_no_earlier_score_and_no_mark() -> None:
    model = FakeJudge(by_name)
    question = Question(id="q1", question="What?", answer="TRUTH-4711", images=ask_about().images)
    marked = [path.model_copy(update={"flags": ("FLAG-1",), "code": None, "model": "MODEL-1"}) for path in THREE]
    asyncio.run(path_scorer(model).score(question, marked))
    everything = "".join(part for message in model.calls[0].messages for part in message.parts if isinstance(part, str))
    assert not re.search("TRUTH-4711|FLAG-1|MODEL-1", everything)


def test_the_same_content_is_sent_as_the_same_bytes_and_other_content_under_another_nonce() -> None:
    first, again, other = FakeJudge(by_name), FakeJudge(by_name), FakeJudge(by_name)
    judge(first)
    judge(again)
    judge(other, [*THREE[:2], path_of(index=2, contents=("alpha cid!",))])
    assert first.calls == again.calls
    nonce = [re.search(r"=== PATH 1 (\w+) ===", model.calls[0].text) for model in (first, other)]
    assert nonce[0]
    assert nonce[1]
    assert nonce[0].group(1) != nonce[1].group(1)


ONE = path_of(contents=("a", "b", "c"))
GOOD = entry(1)
UNREADABLE: list[str] = [
    scores(entry(1, "85/100")),
    scores(entry(1, "85")),
    scores(entry(1, 0.85)),
    scores(entry(1, 85.0)),
    scores(entry(1, 1.0)),
    scores(entry(1, 850)),
    scores(entry(1, 101)),
    scores(entry(1, 0)),
    scores(entry(1, -5)),
    scores(entry(1, "N/A")),
    scores(entry(1, None)),
    scores(entry(1, True)),
    scores(entry(1, [85])),
    scores(entry(1, {"value": 85})),
    scores(entry(1, "８５")),
    scores(entry(1, "eighty")),
    scores(entry(1, "")),
    '{"scores": [{"path": 1, "logic": 70, "grounding": 70, "completeness": 70, "score": ８５, "first_error": null}]}',
    '{"scores": [{"path": 1, "logic": 70, "grounding": 70, "completeness": 70, "score": 85/100, "first_error": null}]}',
    '{"scores": [{"path": 1, "logic": 70, "grounding": 70, "completeness": 70, "score": .85, "first_error": null}]}',
    '{"scores": [{"path": 1, "logic": 70, "grounding": 70, "completeness": 70, "score": 085, "first_error": null}]}',
    '{"scores": [{"path": 1, "logic": 70, "grounding": 70, "completeness": 70, "score": NaN, "first_error": null}]}',
    '{"scores": [{"path": 1, "logic": 70, "grounding": 70, "completeness": 70, "score": 1e999, "first_error": null}]}',
    '{"scores": [{"path": 1, "logic": 70, "grounding": 70, "completeness": 70, "score": 8e1, "first_error": null}]}',
    '{"scores": [{"path": 1, "logic": 7, "grounding": 7, "completeness": 7, "score": 8, "score": 9, "first_error":1}]}',
    "{'scores': [{'path': 1, 'logic': 70, 'grounding': 7, 'completeness': 7, 'score': 85, 'first_error': None}]}",
    '{"scores": [{"path": 1, "logic": 70, "grounding": 7, "completeness": 7, "score": 85, "first_error": null},]}',
    '{"scores": [{"path": 1, "logic": 70, "grounding": 7, "completeness": 7, "score": 85, "first_error": null',
    scores(entry(1, logic=0)),
    scores(entry(1, grounding="70")),
    scores(entry(1, completeness=70.5)),
    scores(entry(1, first_error=0)),
    scores(entry(1, first_error=4)),
    scores(entry(1, first_error=-1)),
    scores(entry(1, first_error="2")),
    scores(entry(1, first_error=2.0)),
    scores(entry(1, first_error=True)),
    scores(entry(1, first_error="null")),
    scores({key: value for key, value in GOOD.items() if key != "first_error"}),
    scores({key: value for key, value in GOOD.items() if key != "logic"}),
    scores({key: value for key, value in GOOD.items() if key != "path"}),
    scores(entry(1, Score=85)),
    scores(),
    scores(entry(1), entry(2)),
    scores(entry(1), entry(1)),
    scores(entry(2)),
    scores(entry(0)),
    scores(entry("1")),  # type: ignore[arg-type]  # a wrong type is the case
    scores(entry(True)),
    json.dumps({"scores": {"1": 85}}),
    json.dumps({"scores": [85]}),
    json.dumps({"scores": "85"}),
    json.dumps({"scores": None}),
    json.dumps({"scores": [GOOD], "note": "fine"}),
    json.dumps({"Scores": [GOOD]}),
    json.dumps([GOOD]),
    json.dumps(GOOD),
    scores(entry(1, 80)) + scores(entry(1, 20)),
    "First " + scores(entry(1, 80)) + " or rather " + scores(entry(1, 20)),
    json.dumps(scores(GOOD)),
    "85",
    "85/100",
    "Score: 85",
    "",
    "   ",
    "null",
    "I cannot help with that.",
    "[" * 5000,
]
READABLE: list[tuple[str, int, int | None]] = [
    (scores(entry(1, 1)), 1, None),
    (scores(entry(1, 100)), 100, None),
    (scores(entry(1, 85, first_error=3)), 85, 3),
    ("```json\n" + scores(entry(1, 85)) + "\n```", 85, None),
    ("Here is my judgement:\n" + scores(entry(1, 85)), 85, None),
    (json.dumps({"scores": [entry(1, 85)]}, indent=2), 85, None),
]


@pytest.mark.parametrize("reply", UNREADABLE)
def test_unreadable_reply_is_asked_again_and_then_is_no_score(reply: str) -> None:
    model = FakeJudge(lambda call, number: reply)
    (score,) = judge(model, [ONE])
    assert score.value is None
    assert score.accepted is None
    assert score.reason.startswith("unreadable: ")
    assert score.details["failed"]
    assert len(model.calls) == 3
    assert len({call.messages for call in model.calls}) == 1
    assert len({call.sampling.seed for call in model.calls}) == 3


@pytest.mark.parametrize(("reply", "value", "fault"), READABLE)
def test_readable_reply_is_read_at_once(reply: str, value: int, fault: int | None) -> None:
    model = FakeJudge(lambda call, number: reply)
    (score,) = judge(model, [ONE])
    assert (score.value, score.accepted, score.details["first_error"]) == (value, True, fault)
    assert len(model.calls) == 1


def test_a_later_try_may_succeed() -> None:
    model = FakeJudge(lambda call, number: "85/100" if number < 2 else by_name(call, number))
    assert [score.value for score in judge(model)] == [91, 55, 12]
    assert len(model.calls) == 3


@pytest.mark.parametrize("wrong", [[1, 2], [1, 2, 2], [1, 2, 4], [0, 1, 2], [1, 2, 3, 4]])
def test_a_list_of_the_wrong_length_scores_no_path_at_all(wrong: list[int]) -> None:
    result = judge(FakeJudge(lambda call, number: scores(*(entry(place) for place in wrong))))
    assert [(score.value, score.accepted) for score in result] == [(None, None)] * 3


@pytest.mark.parametrize(("finish", "code", "calls"), [("length", "truncated", 3), ("refusal", "refusal", 1)])
def test_a_cut_or_refused_reply_is_not_read_even_where_it_parses(finish: Any, code: str, calls: int) -> None:
    model = FakeJudge(lambda call, number: Completion(text=scores(GOOD), finish=finish))
    (score,) = judge(model, [ONE])
    assert (score.value, score.details["failed"], score.details["tries"]) == (None, code, calls)
    assert len(model.calls) == calls


def test_a_model_error_leaves_the_paths_unjudged_and_stop_run_goes_through() -> None:
    result = judge(FakeJudge(lambda call, number: ModelError("timeout", "no reply in 5 s")))
    assert {(score.value, score.accepted, score.details["failed"]) for score in result} == {(None, None, "timeout")}
    with pytest.raises(BudgetSpent):
        judge(FakeJudge(lambda call, number: BudgetSpent("max_requests")))


def test_paths_that_are_not_whole_are_not_shown() -> None:
    model = FakeJudge(by_name)
    rejected = path_of(index=3, status="rejected", code="truncated", contents=("alpha zed",))
    empty = path_of(index=4, contents=())
    result = judge(model, [rejected, *THREE, empty])
    assert [score.value for score in result] == [None, 91, 55, 12, None]
    assert "zed" not in model.calls[0].text
    assert judge(FakeJudge(by_name), [rejected])[0].accepted is None
    assert judge(FakeJudge(by_name), []) == []


def test_threshold_refuses_and_is_met_by_its_own_value() -> None:
    assert [score.accepted for score in judge(FakeJudge(by_name), threshold=55)] == [True, True, False]


def test_repeats_keep_the_spread_and_use_what_could_be_read() -> None:
    worth = iter([60, 90, 75])
    model = FakeJudge(lambda call, number: scores(entry(1, next(worth))))
    (score,) = judge(model, [ONE], repeats=3)
    assert score.value == 75
    assert [score.details[key] for key in ("min", "max", "unreadable")] == [60, 90, 0]
    assert score.details["stdev"] == pytest.approx(12.247, abs=0.001)
    assert [one["score"] for one in score.details["repeats"]] == [60, 90, 75]
    partly = FakeJudge(lambda call, number: "no" if number < 3 else scores(entry(1, 40)))
    (score,) = judge(partly, [ONE], repeats=2)
    assert (score.value, score.details["unreadable"]) == (40, 1)
    (score,) = judge(FakeJudge(lambda call, number: "no"), [ONE], repeats=2)
    assert (score.value, score.accepted) == (None, None)


def test_repeats_shuffle_anew_and_disagreement_on_the_fault_is_no_fault() -> None:
    model = FakeJudge(lambda call, number: scores(*(entry(n, first_error=1 + number % 2) for n in (1, 2, 3))))
    result = judge(model, repeats=4)
    assert len({tuple(shown(call)) for call in model.calls}) > 1
    assert "first_error" not in result[0].details


def test_options_out_of_range_are_refused() -> None:
    wrong: list[dict[str, Any]] = [{"threshold": 0}, {"threshold": 101}, {"repeats": 0}, {"tries": 0}, {"top_p": 2}]
    for options in wrong:
        with pytest.raises(ConfigError):
            path_scorer(FakeJudge(by_name), **options)


def test_unopened_images_are_an_error_and_not_a_score() -> None:
    question = Question(id="q1", question="What?", images=("chart.png",))
    with pytest.raises(ValueError, match="not opened"):
        asyncio.run(path_scorer(FakeJudge(by_name)).score(question, THREE))


def test_a_custom_system_prompt_is_sent_and_reported() -> None:
    model = FakeJudge(by_name)
    scorer = path_scorer(model, system_prompt="Be strict {really} {{nonce}}.")
    asyncio.run(scorer.score(ask_about(), THREE))
    assert model.calls[0].messages[0] == Message(role="system", content="Be strict {really} {{nonce}}.")
    assert scorer.prompts["path.system"] == "Be strict {really} {{nonce}}."
