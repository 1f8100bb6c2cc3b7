"""Each example in each prompt is a reply that its own parser reads; and the prompts say what the schema says."""

from __future__ import annotations

from insightv.agents.replies.json_reply import read_object
from insightv.assess import answer, path_prompt
from insightv.assess.answer import AnswerScorer as answer_scorer
from insightv.assess.path import PathScorer as path_scorer
from insightv.assess.quoting import objects_in
from tests.assess.fakes import FakeJudge


def examples(prompt: str) -> list[dict[str, object]]:
    found = list(objects_in(prompt))
    return [one for one in found if not any(one in list(other.values()) or one in _inner(other) for other in found)]


def _inner(value: dict[str, object]) -> list[object]:
    return [item for part in value.values() if isinstance(part, list) for item in part]


def test_every_example_of_the_path_prompt_is_read() -> None:
    shown = examples(path_prompt.SYSTEM_PROMPT)
    assert len(shown) == 1
    grades = path_prompt.read_scores(shown[0], [3, 3])
    assert [grade.first_error for grade in grades] == [None, 2]
    assert path_prompt.SYSTEM_PROMPT.count('{"scores"') == 1


def test_every_example_of_the_answer_prompt_is_read() -> None:
    shown = examples(answer.SYSTEM_PROMPT)
    assert [answer.read_verdict(one)[0] for one in shown] == [True, False]
    assert answer.SYSTEM_PROMPT.count('{"correct"') == 2
    lines = [line for line in answer.SYSTEM_PROMPT.splitlines() if line.startswith("{")]
    assert all(read_object(line).rung == "strict" for line in lines)


def test_no_example_hides_in_the_user_prompts() -> None:
    assert list(objects_in(path_prompt.USER_PROMPT)) == list(objects_in(answer.USER_PROMPT)) == []


def test_prompts_name_every_key_of_their_schema() -> None:
    entry = path_prompt.PATH_SCORES.definition["properties"]["scores"]["items"]["properties"]
    assert all(name in path_prompt.SYSTEM_PROMPT and name in path_prompt.USER_PROMPT for name in entry)
    assert all(name in answer.USER_PROMPT for name in answer.ANSWER_VERDICT.definition["required"])


def test_scorers_report_their_prompts() -> None:
    model = FakeJudge(lambda call, number: "")
    assert path_scorer(model).prompts == {
        "path.system": path_prompt.SYSTEM_PROMPT,
        "path.user": path_prompt.USER_PROMPT,
    }
    assert answer_scorer(model, system_prompt="Mine.").prompts["answer.system"] == "Mine."
    assert answer_scorer(None).prompts["answer.user"] == answer.USER_PROMPT
