"""Ways of laying rows on disk: one file, or a folder that another program reads as it is.

TRL and `datasets` read Parquet with the pictures inside; LLaMA-Factory and ms-swift read JSON lines with the pictures
as files beside them. Knows how rows are written, not how they were chosen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from insightv.errors import ConfigError
from insightv.inputs.images import ImageStore
from insightv.records import Message, Picture
from insightv.strict_json import Json, clean, json_text
from insightv.train.data.card import Layout
from insightv.train.data.rows import Kind, TrainingRow, embedded, file_name, training_features, trl_row

# What LLaMA-Factory and ms-swift take for a place of media or of a box, wherever it stands in a text.
_PLACES = re.compile(r"<(image|video|audio|bbox|ref-object|cot-process)>")

_BACK = {
    "question_id, path": "the question, and the number of its path from 0; no path: general data",
    "band, score, scores": "how the path was judged (scores are on 1..100; empty: not given)",
    "model, seed, calls": "who wrote the path, and the keys of the calls in the run's journal",
    "family, source, licence": "as given with the question",
}
_SHOWN = {"prompt": "messages; each content is a list of blocks, an `image` block where a picture belongs"}
_PICTURES = {"images": "the pictures of the `image` blocks, in order"}
_REPLY = {"completion": "the assistant's reply to learn"}
_TRL: Mapping[Kind, dict[str, str]] = {
    "completion": _SHOWN | _REPLY | _PICTURES,
    "label": _SHOWN | _REPLY | _PICTURES | {"label": "true where the path's answer was judged right"},
    "pair": _SHOWN
    | {"chosen, rejected": "the better and the worse reply"}
    | _PICTURES
    | {
        "margin": "points of score between them (a wrong answer counts as 0 points)",
        "rejected_path and on": "as for the chosen path",
    },
}
_KINDS: Mapping[str, Kind] = {"paths": "label", "preference": "pair"}


def kind_of(name: str) -> Kind:
    """What the rows of the set with this name teach."""
    return _KINDS.get(name, "completion")


_SHAREGPT_COLUMNS: Mapping[Kind, dict[str, str]] = {
    "label": {"kto_tag": "label"},
    "pair": {"chosen": "chosen", "rejected": "rejected"},
}
_ID: Mapping[Kind, str] = {
    "completion": "question id # number of its path",
    "label": "question id # number of its path",
    "pair": "question id # number of the better path > number of the worse one",
}

FolderWriter = Callable[[str, Iterable[TrainingRow], Path], Layout]
"""Writes the rows of the set with this name into a folder, and says how they lie."""


def write_trl(name: str, rows: Iterable[TrainingRow], folder: Path) -> Layout:
    """Parquet in TRL's form; `load_dataset(folder)` and `trl sft` or `trl dpo --dataset_name folder` read it."""
    from insightv.train.data.parquet import write_files

    kind = kind_of(name)
    write_files((trl_row(row, embedded(row)) for row in rows), training_features(kind), folder)
    return Layout(_TRL[kind] | _BACK)


def write_llamafactory(name: str, rows: Iterable[TrainingRow], folder: Path) -> Layout:
    """ShareGPT rows with `dataset_info.json`: give the folder as `dataset_dir` and `insightv_NAME` as `dataset`."""
    file = f"insightv_{name}.jsonl"
    with (folder / file).open("wb") as lines:
        _write_lines(_with_files(rows, folder / "images", "images", _sharegpt), lines)
    columns = {"messages": "conversations", "images": "images"} | _SHAREGPT_COLUMNS.get(kind_of(name), {})
    tags = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
    info: dict[str, object] = {"file_name": file, "formatting": "sharegpt", "columns": columns}
    info |= {"tags": tags | {"system_tag": "system"}} | ({"ranking": True} if kind_of(name) == "pair" else {})
    (folder / "dataset_info.json").write_text(json_text({f"insightv_{name}": info}) + "\n", encoding="utf-8")
    return Layout(
        {
            "dataset_info.json": f"for LLaMA-Factory: dataset_dir is this folder, dataset is insightv_{name}",
            "conversations": "turns (from, value), `<image>` where a picture belongs",
            "images": "files of the pictures, relative to this folder, in order",
            "id": _ID[kind_of(name)],
        }
        | ({"chosen, rejected": "the better and the worse reply (from, value)"} if kind_of(name) == "pair" else {})
    )


def write_swift(name: str, rows: Iterable[TrainingRow], folder: Path) -> Layout:
    """ms-swift's rows; start it in the folder, or with ROOT_IMAGE_DIR set to it."""
    with (folder / f"{name}.jsonl").open("wb") as lines:
        _write_lines(_with_files(rows, folder / "images", "images", _swift), lines)
    return Layout(
        {
            f"{name}.jsonl": "for ms-swift: --dataset is this file, and ROOT_IMAGE_DIR this folder",
            "messages": "turns (role, content), `<image>` where a picture belongs",
            "images": "files of the pictures, relative to this folder, in order",
            "id": _ID[kind_of(name)],
        }
        | ({"rejected_response": "a reply worse than the last turn"} if kind_of(name) == "pair" else {})
    )


def write_jsonl(rows: Iterable[TrainingRow], file: BinaryIO, images: Path) -> None:
    """TRL's form as JSON lines, the pictures as files in the folder `images`."""
    _write_lines(_with_files(rows, images, images.name, trl_row), file)


def write_parquet(rows: Iterable[TrainingRow], file: BinaryIO, kind: Kind) -> None:
    """TRL's form as one Parquet file."""
    from insightv.train.data.parquet import write_file

    write_file((trl_row(row, embedded(row)) for row in rows), training_features(kind), file)


def _with_files(
    rows: Iterable[TrainingRow],
    images: Path,
    prefix: str,
    form: Callable[[TrainingRow, Sequence[object]], Mapping[str, object]],
) -> Iterator[Mapping[str, object]]:
    store = ImageStore(images)
    for row in rows:
        for picture in row.pictures:
            store.put(picture)
        yield form(row, [f"{prefix}/{file_name(picture)}" for picture in row.pictures])


def _write_lines(rows: Iterable[Mapping[str, object]], file: BinaryIO) -> None:
    for row in rows:
        file.write(json_text(row).encode() + b"\n")


def _sharegpt(row: TrainingRow, images: Sequence[object]) -> dict[str, object]:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    turns = [{"from": names[role], "value": text} for role, text in _turns(row)]
    pair: dict[str, object] = {}
    if row.rejected is not None:  # the better reply stands beside the worse one, not in the conversation
        pair = {"chosen": turns.pop(), "rejected": {"from": "gpt", "value": _escape(row.rejected.completion)}}
    return {"conversations": turns, **pair, "images": list(images), **_identity(row)}


def _swift(row: TrainingRow, images: Sequence[object]) -> dict[str, object]:
    turns = [{"role": role, "content": text} for role, text in _turns(row)]
    worse = {} if row.rejected is None else {"rejected_response": _escape(row.rejected.completion)}
    return {"messages": turns, **worse, "images": list(images), **_identity(row)}


def _identity(row: TrainingRow) -> dict[str, Json]:
    # Texts only: both programs read through `datasets`, which guesses a column's type from the first rows.
    mark = "" if row.assessed is None else f"#{row.assessed.path.index}"
    mark += "" if row.rejected is None else f">{row.rejected.assessed.path.index}"
    label: dict[str, Json] = {} if row.label is None else {"label": row.label}
    return label | {"id": clean(row.question.id) + mark}


def _turns(row: TrainingRow) -> list[tuple[str, str]]:
    """The row as turns of text, `<image>` where a picture stands.

    Raises:
        ConfigError: user and assistant do not alternate, which both programs want.
    """
    turns: list[tuple[str, str]] = [(message.role, _inline(message)) for message in row.prompt]
    turns.append(("assistant", _escape(row.completion)))
    spoken = [role for role, _ in turns if role != "system"]
    if spoken != ["user", "assistant"] * (len(spoken) // 2) or "system" in [role for role, _ in turns[1:]]:
        raise ConfigError(
            f"question {row.question.id!r}: its prompt has the turns {', '.join(role for role, _ in turns)}; "
            "LLaMA-Factory and ms-swift take a system turn at most at the start, then user and assistant in turn: "
            "export as trl, or change the agent's prompt"
        )
    return turns


def _inline(message: Message) -> str:
    return "".join("<image>" if isinstance(part, Picture) else _escape(part) for part in message.parts)


def _escape(text: str) -> str:
    """The text with what would be taken for a picture's place made harmless: `<image>` as `< image>`."""
    return _PLACES.sub(r"< \1>", clean(text))
