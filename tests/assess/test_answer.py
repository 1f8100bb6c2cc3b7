"""The answer scorer: rules first, the model for the rest, three values."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from typing import Any

import pytest

from insightv.assess.answer import AnswerScorer as answer_scorer
from insightv.errors import ConfigError, KeyRefused, ModelError
from insightv.records import Completion, Question, Score
from tests.assess.fakes import Call, FakeJudge, ask_about, path_of


def verdict(correct: Any, reason: Any = "so it is") -> str:
    return json.dumps({"correct": correct, "reason": reason})


def judge(question: Question, answers: list[str | None], model: FakeJudge | None = None, **options: Any) -> list[Score]:
    paths = [path_of(index=i).model_copy(update={"answer": answer}) for i, answer in enumerate(answers)]
    return asyncio.run(answer_scorer(model, **options).score(question, paths))


def unasked(call: Call, number: int) -> Exception:
    return RuntimeError("the model must not be asked")


def test_what_rules_decide_is_not_asked() -> None:
    model = FakeJudge(unasked)
    right, wrong, formula = judge(ask_about("12"), ["12", "13", "12.0"], model)
    assert (right.accepted, right.value, right.details) == (True, None, {"by": "rule:number", "rule": "equal"})
    assert (wrong.accepted, wrong.value) == (False, None)
    assert formula.accepted is True
    (score,) = judge(ask_about("2\\sqrt{3}"), ["\\sqrt{12}"], model)
    assert (score.accepted, score.details) == (True, {"by": "rule:math", "rule": "math"})
    (score,) = judge(ask_about("B", choices=("red", "blue")), ["(B) blue"], model)
    assert (score.accepted, score.details) == (True, {"by": "rule:choice", "rule": "choice"})
    assert model.calls == []


def test_the_rest_is_asked_once_for_each_different_answer() -> None:
    model = FakeJudge(lambda call, number: verdict("States" in call.text))
    result = judge(ask_about("USA"), ["United States", "Mexico City", "United States", "USA", " United States "], model)
    assert [score.accepted for score in result] == [True, False, True, True, True]
    assert len(model.calls) == 2
    assert result[0].details["by"] == "model"
    assert result[3].details["by"] == "rule:text"
    assert model.calls[0].schema is not None
    assert model.calls[0].schema.name == "answer_verdict"
    assert model.calls[0].sampling.temperature == 0.2
    assert model.calls[0].sampling.seed != model.calls[1].sampling.seed


def test_a_model_may_be_unable_to_tell() -> None:
    (score,) = judge(ask_about("USA"), ["the States"], FakeJudge(lambda call, number: verdict(None, "unclear")))
    assert (score.accepted, score.reason, score.details["by"]) == (None, "unclear", "model")


def test_without_a_model_or_a_truth_or_an_answer_nothing_is_judged() -> None:
    (score,) = judge(ask_about("USA"), ["the States"])
    assert (score.accepted, score.reason) == (None, "could not be judged by rules, no model configured")
    for truth in (None, "", "  "):
        (score,) = judge(ask_about(truth), ["5"], FakeJudge(unasked))
        assert (score.accepted, score.reason) == (None, "the question has no ground truth")
    for given in (None, "", " "):
        (score,) = judge(ask_about("5"), [given], FakeJudge(unasked))
        assert (score.accepted, score.reason) == (None, "the path has no answer")
    assert judge(ask_about("5"), []) == []


@pytest.mark.parametrize(
    "reply",
    [
        verdict("true"),
        verdict("yes"),
        verdict(1),
        verdict(0),
        verdict([True]),
        verdict(True, None),
        verdict(True, 5),
        '{"correct": true}',
        '{"reason": "fine"}',
        '{"correct": true, "correct": false, "reason": "x"}',
        '{"correct": True, "reason": "x"}',
        '{"correct": true/false, "reason": "x"}',
        '{"correct": true, "reason": "x"} {"correct": false, "reason": "x"}',
        '{"correct": true, "reason": "x", "confidence": 0.3}',
        "[1]",
        "1",
        "true",
        "The candidate is correct.",
        "",
    ],
)
def test_unreadable_verdict_is_asked_again_and_then_is_neither_right_nor_wrong(reply: str) -> None:
    model = FakeJudge(lambda call, number: reply)
    (score,) = judge(ask_about("USA"), ["the States"], model, tries=2)
    assert (score.accepted, score.value) == (None, None)
    assert score.reason.startswith("unreadable: ")
    assert len(model.calls) == 2
    assert len({call.messages for call in model.calls}) == 1
    assert len({call.sampling.seed for call in model.calls}) == 2


def test_a_cut_verdict_is_asked_again() -> None:
    cut = Completion(text=verdict(True), finish="length")
    model = FakeJudge(lambda call, number: cut if number == 0 else verdict(False))
    assert judge(ask_about("USA"), ["the States"], model)[0].accepted is False


def test_a_model_error_is_no_verdict_and_stop_run_goes_through() -> None:
    model = FakeJudge(lambda call, number: ModelError("timeout", "no reply"))
    right, open_ = judge(ask_about("USA"), ["USA", "the States"], model)
    assert right.accepted is True
    assert (open_.accepted, open_.details["failed"]) == (None, "timeout")
    with pytest.raises(KeyRefused):
        judge(ask_about("USA"), ["USA", "the States", "Mexico"], FakeJudge(lambda call, number: KeyRefused("401")))


def test_calls_are_the_same_bytes_and_seeds_when_made_again() -> None:
    first, again, other = (FakeJudge(lambda call, number: verdict(True)) for _ in range(3))
    judge(ask_about("USA"), ["the States"], first)
    judge(ask_about("USA"), ["the States"], again)
    judge(ask_about("USA"), ["the States"], other, seed=1)
    assert first.calls == again.calls
    assert first.calls[0].sampling.seed != other.calls[0].sampling.seed


def test_options_out_of_range_are_refused() -> None:
    for options in ({"tolerance": -0.1}, {"tolerance": 1}, {"tolerance": float("nan")}):
        with pytest.raises(ConfigError):
            answer_scorer(None, **options)
    with pytest.raises(ConfigError):
        answer_scorer(FakeJudge(unasked), tries=0)


def test_tolerance_and_exact_text_are_options() -> None:
    assert judge(ask_about("100"), ["104"])[0].accepted is True
    assert judge(ask_about("100"), ["104"], tolerance=0.0)[0].accepted is False
    assert judge(ask_about("Kim"), ["Ann"])[0].accepted is None
    assert judge(ask_about("Kim"), ["Ann"], exact_text=True)[0].accepted is False


async def _longest_gap(stop: asyncio.Event) -> float:
    """The most that the loop's own thread has worked between two turns of a watcher; sleep by others does not count."""
    longest, last = 0.0, time.thread_time()
    while not stop.is_set():
        await asyncio.sleep(0.002)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    return longest


def test_hundreds_of_checks_do_not_hold_up_the_event_loop() -> None:
    answers = [f"{n}\\sqrt{{3}}" for n in range(24)] + [f"The value is {n}, {n + 1}." for n in range(300)]
    questions = [ask_about("2\\sqrt{3}"), ask_about("12"), ask_about("red, blue")]

    async def run() -> tuple[float, list[list[Score]]]:
        scorer = answer_scorer()
        stop = asyncio.Event()
        watch = asyncio.create_task(_longest_gap(stop))
        paths = [path_of(answer, index) for index, answer in enumerate(answers)]
        result = await asyncio.gather(*(scorer.score(question, paths) for question in questions))
        stop.set()
        return await watch, result

    gc.disable()  # a collection goes through all that other tests have loaded, which takes this thread longer
    try:
        gap, result = asyncio.run(run())
    finally:
        gc.enable()
    assert [score.accepted for score in result[0][:4]] == [False, False, True, False]
    assert gap < 0.2


def test_a_formula_without_end_is_given_up_and_the_next_one_is_checked() -> None:
    from insightv.assess.rules.mathematics import MathChecker

    checker = MathChecker(limit_s=1.0)
    assert asyncio.run(checker.equal("2\\sqrt{3}", "9^{9^{9^{9}}}")) is None
    assert asyncio.run(checker.equal("2\\sqrt{3}", "\\sqrt{12}")) is True


def test_formulas_are_checked_from_other_threads_and_other_loops() -> None:
    scorer = answer_scorer()
    found: list[bool | None] = []

    def run() -> None:
        paths = [path_of("\\sqrt{12}"), path_of("\\sqrt{13}", 1)]
        found.extend(score.accepted for score in asyncio.run(scorer.score(ask_about("2\\sqrt{3}"), paths)))

    children: list[Any] = []
    for _ in range(2):
        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        children.append(scorer._mathematics._child)
    assert children[0] is children[1]
    assert not children[0].wait(0.5), "the system ends a child with the thread that started it"
    assert sorted(found, key=str) == [False] * 4 + [True] * 4


def test_no_process_is_started_where_no_formula_is_seen() -> None:
    import subprocess

    began: list[Any] = []

    class FakeStart(subprocess.Popen[str]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            began.append(args)
            super().__init__(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", FakeStart)
        judge(ask_about("12"), ["12", "13", "twelve apples and a pear"])
        judge(ask_about("oak"), ["elm", "beech"])
        judge(ask_about("A or B", choices=("x^2", "x^3")), ["x^2"])
    assert began == []


def test_any_of_several_answers_is_right() -> None:
    question = Question(id="q", question="What colour is it?", answer="red", answers=("orange",))
    paths = [path_of(text) for text in ("orange", "red", "blue")]
    assert [score.accepted for score in asyncio.run(answer_scorer().score(question, paths))] == [True, True, False]
