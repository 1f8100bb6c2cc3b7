"""The replies of a chain: one step, or the final answer. Beside their schemas, and stricter than JSON.

A step has exactly the keys title, content, action; other keys are refused, because a reply that is not the one asked
for may hide a second action or an answer. The action is normalised in case and outer space only. Title and content
lose outer white space and must not be blank. The final answer is a text; a number is taken as the text of its value,
anything else is refused.
"""

from __future__ import annotations

from insightv.agents.replies.reading import Reading, Unreadable
from insightv.records import Action, Schema, Step
from insightv.strict_json import Json

STEP_SCHEMA = Schema(
    name="reasoning_step",
    definition={
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "content": {"type": "string"},
            "action": {"type": "string", "enum": ["continue", "summary"]},
        },
        "required": ["title", "content", "action"],
        "additionalProperties": False,
    },
)

FINAL_SCHEMA = Schema(
    name="final_answer",
    definition={
        "type": "object",
        "properties": {"answer": {"type": "string"}},
        "required": ["answer"],
        "additionalProperties": False,
    },
)

_ACTIONS: dict[str, Action] = {"continue": "continue", "summary": "summary"}
_EXACT_FLOAT = 1e15  # a float below it is written without an exponent and with all its digits


def step_of(reading: Reading) -> Step:
    """The step that an object is.

    Raises:
        Unreadable: with the code keys, wrong_type, blank or unknown_action.
    """
    _check_keys(reading.value, "title", "content", "action")
    action = _text(reading.value, "action")
    known = _ACTIONS.get(action.lower())
    if known is None:
        raise Unreadable("unknown_action", f"the action is {action[:40]!r}, not one of continue, summary")
    return Step(title=_text(reading.value, "title"), content=_text(reading.value, "content"), action=known)


def answer_of(reading: Reading) -> str:
    """The answer that an object holds.

    Raises:
        Unreadable: with the code keys, wrong_type or blank.
    """
    _check_keys(reading.value, "answer")
    answer = reading.value["answer"]
    if isinstance(answer, int) and not isinstance(answer, bool):
        return str(answer)
    if isinstance(answer, float) and (answer == 0 or 1e-4 <= abs(answer) < _EXACT_FLOAT):
        return str(answer)
    return _text(reading.value, "answer")


def flags_of(reading: Reading) -> tuple[str, ...]:
    """What a path says about a reply that was not plain JSON: the rung that read it, and mended LaTeX."""
    flags = () if reading.rung == "strict" else (f"read:{reading.rung}",)
    return (*flags, "read:latex") if reading.mended else flags


def _check_keys(value: dict[str, Json], *wanted: str) -> None:
    if set(value) != set(wanted):
        found = ", ".join(sorted(key[:40] for key in value)[:6]) or "none"
        raise Unreadable("keys", f"the reply has the keys {found}; wanted are exactly {', '.join(wanted)}")


def _text(value: dict[str, Json], key: str) -> str:
    text = value[key]
    if not isinstance(text, str):
        raise Unreadable("wrong_type", f"{key} is {type(text).__name__}, not a text")
    if not text.strip():
        raise Unreadable("blank", f"{key} is blank")
    return text.strip()
