"""Rows of training data, and how each is written: TRL's vision forms (completions, pairs), and a path for reading.

Every row leads back to where it came from: question, path, scores, model, seed and the keys of the calls. Knows no
prompt (messages come from the agent that will see them) and no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from insightv.assess.bands import AssessedPath
from insightv.records import Message, Picture, Question, Score
from insightv.strict_json import clean, int64, json_text, plain

if TYPE_CHECKING:
    from datasets import Features

Cell: TypeAlias = object
"""A value of a column, as pyarrow takes it."""


Kind = Literal["completion", "label", "pair"]
"""What a row teaches: a reply, a reply with a verdict, or a reply better than another one."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The worse reply of a pair, the path that it was made of, and by how many points of score it is worse."""

    completion: str
    assessed: AssessedPath
    margin: float


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """What a model is shown (`prompt`, pictures in place) and what it learns to reply (`completion`).

    `assessed` is the path that the row is made of; None for general image-question data. `source` and `licence` are
    those of the question, as given; `label` says in sets of judged paths whether the path's answer was right, and
    `rejected` in sets of pairs what the completion is better than.
    """

    prompt: tuple[Message, ...]
    completion: str
    question: Question
    assessed: AssessedPath | None = None
    source: str = ""
    licence: str = ""
    label: bool | None = None
    rejected: Rejected | None = None

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures of the prompt, in the order of their places."""
        return tuple(part for message in self.prompt for part in message.parts if isinstance(part, Picture))


def file_name(picture: Picture) -> str:
    """The name of a picture's file: its digest and the extension of its format."""
    return f"{picture.sha256}.{picture.mime.removeprefix('image/').replace('jpeg', 'jpg')}"


@dataclass(frozen=True, slots=True)
class Licence:
    """Where questions come from and under which licence, as their owner states it; a question's `meta` comes first."""

    source: str = ""
    licence: str = ""

    def of(self, question: Question) -> tuple[str, str]:
        """Source and licence of a question."""
        source, licence = question.meta.get("source"), question.meta.get("licence", question.meta.get("license"))
        return (
            clean(source) if isinstance(source, str) else self.source,
            clean(licence) if isinstance(licence, str) else self.licence,
        )


NOT_GIVEN = Licence()


def trl_messages(messages: Sequence[Message]) -> list[dict[str, Cell]]:
    """Messages with content as blocks, a placeholder where each picture belongs.

    Blocks, not strings, in every row: TRL takes the form of a batch from its first row, and only blocks say where
    among the texts a picture stands.
    """
    return [{"role": message.role, "content": [_block(part) for part in message.parts]} for message in messages]


def _block(part: str | Picture) -> dict[str, Cell]:
    if isinstance(part, Picture):
        return {"type": "image", "text": None}
    return {"type": "text", "text": clean(part)}


def score_cells(scores: Sequence[Score]) -> list[dict[str, Cell]]:
    """Scores as columns: scorer, value on 1..100 or None, accepted or None, reason."""
    return [
        {"scorer": clean(s.scorer), "value": s.value, "accepted": s.accepted, "reason": clean(s.reason)} for s in scores
    ]


def lineage(row: TrainingRow) -> dict[str, Cell]:
    """The columns that lead back. Those of a path are None or empty where the row was made of none."""
    family = row.question.meta.get("family")
    cells: dict[str, Cell] = {
        "question_id": clean(row.question.id),
        "path": None,
        "band": None,
        "score": None,
        "scores": [],
        "model": None,
        "seed": None,
        "calls": [],
        "family": clean(family) if isinstance(family, str) else None,
        "source": row.source or None,
        "licence": row.licence or None,
    }
    if row.assessed is not None:
        path = row.assessed.path
        cells |= {
            "path": path.index,
            "band": row.assessed.band.value if row.assessed.band else None,
            "score": row.assessed.score,
            "scores": score_cells(row.assessed.scores),
            "model": clean(path.model),
            "seed": int64(path.seed),
            "calls": [clean(call) for call in path.calls],
        }
    if row.rejected is not None:
        worse = row.rejected.assessed
        cells |= {
            "margin": row.rejected.margin,
            "rejected_path": worse.path.index,
            "rejected_band": worse.band.value if worse.band else None,
            "rejected_score": worse.score,
            "rejected_scores": score_cells(worse.scores),
            "rejected_seed": int64(worse.path.seed),
            "rejected_calls": [clean(call) for call in worse.path.calls],
        }
    return cells


def trl_row(row: TrainingRow, images: Sequence[Cell]) -> dict[str, Cell]:
    """The row in TRL's form, with `images` as given: in order, one for each placeholder."""
    shown, told = {"prompt": trl_messages(row.prompt)}, {"images": list(images)}
    reply = _reply(row.completion)
    if row.rejected is not None:
        return shown | {"chosen": reply, "rejected": _reply(row.rejected.completion)} | told | lineage(row)
    label = {} if row.label is None else {"label": row.label}
    return shown | {"completion": reply} | told | label | lineage(row)


def _reply(text: str) -> list[dict[str, Cell]]:
    return trl_messages((Message(role="assistant", content=text),))


def embedded(row: TrainingRow) -> list[Cell]:
    """The pictures of a row as `datasets` keeps them inside Parquet."""
    return [{"bytes": picture.data, "path": file_name(picture)} for picture in row.pictures]


def path_row(question_id: str, assessed: AssessedPath) -> dict[str, Cell]:
    """A path for reading, of any status. `score_details` are the details of `scores`, in their order."""
    path = assessed.path
    return {
        "question_id": clean(question_id),
        "path": path.index,
        "status": path.status,
        "code": path.code,
        "detail": clean(path.detail),
        "steps": [{"title": clean(s.title), "content": clean(s.content), "action": s.action} for s in path.steps],
        "answer": None if path.answer is None else clean(path.answer),
        "scores": score_cells(assessed.scores),
        "score_details": [plain(score.details) for score in assessed.scores],
        "band": assessed.band.value if assessed.band else None,
        "model": clean(path.model),
        "seed": int64(path.seed),
        "usage": {name: int64(number) for name, number in path.usage.model_dump().items()},
        "flags": [clean(flag) for flag in path.flags],
        "calls": [clean(call) for call in path.calls],
    }


def path_table_row(row: Mapping[str, Cell]) -> dict[str, Cell]:
    """A path's row for a table, whose columns have one type each: the details of scores as JSON texts."""
    details = row["score_details"]
    return {**row, "score_details": [json_text(item) for item in details] if isinstance(details, list) else []}


def training_features(kind: Kind = "completion") -> Features:
    """The columns of `trl_row`, as Hugging Face features, for rows of one kind."""
    from datasets import Features, Image, List, Value

    text, number, points = Value("string"), Value("int64"), Value("float64")
    messages = List({"role": text, "content": List({"type": text, "text": text})})
    replies = {"chosen": messages, "rejected": messages} if kind == "pair" else {"completion": messages}
    label = {"label": Value("bool")} if kind == "label" else {}
    columns = {"prompt": messages} | replies | {"images": List(Image())} | label | {"question_id": text, "path": number}
    columns |= {"band": text, "score": points, "scores": List(_score_features()), "model": text, "seed": number}
    columns |= {"calls": List(text), "family": text, "source": text, "licence": text}
    if kind == "pair":
        columns |= {"margin": points, "rejected_path": number, "rejected_band": text, "rejected_score": points}
        columns |= {"rejected_scores": List(_score_features()), "rejected_seed": number, "rejected_calls": List(text)}
    return Features(columns)


def path_features() -> Features:
    """The columns of `path_table_row`, as Hugging Face features."""
    from datasets import Features, List, Value

    text, number = Value("string"), Value("int64")
    usage = {name: number for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "requests")}
    return Features(
        {"question_id": text, "path": number, "status": text, "code": text, "detail": text}
        | {"steps": List({"title": text, "content": text, "action": text}), "answer": text}
        | {"scores": List(_score_features()), "score_details": List(text), "band": text, "model": text}
        | {"seed": number, "usage": usage, "flags": List(text), "calls": List(text)}
    )


def _score_features() -> dict[str, object]:
    from datasets import Value

    return {"scorer": Value("string"), "value": Value("float64"), "accepted": Value("bool"), "reason": Value("string")}
