"""What a model is shown, as JSON and back: messages whose pictures are files.

    [{"role": "user", "content": [{"type": "image", "path": "/.../images/ab12.png"}, {"type": "text", "text": "..."}]}]

The form is that of transformers' chat templates, so that a trainer of any make can read a pair's `meta["prompt"]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from insightv.errors import InputError
from insightv.inputs.images import ImageStore
from insightv.records import Message, Picture
from insightv.strict_json import Json
from insightv.train.data.rows import file_name


def to_json(messages: Sequence[Message], store: ImageStore) -> list[Json]:
    """The messages, their pictures kept in `store` and named by their absolute paths."""
    for message in messages:
        for part in message.parts:
            if isinstance(part, Picture):
                store.put(part)
    folder = store.folder.absolute()
    return [{"role": m.role, "content": [_block(part, folder) for part in m.parts]} for m in messages]


def from_json(cells: object) -> tuple[Message, ...]:
    """The messages with their pictures read and checked.

    Raises:
        InputError: this is not what `to_json` writes, or a picture is missing or was changed.
    """
    if not isinstance(cells, Sequence) or isinstance(cells, str):
        raise InputError(f"a prompt is a list of messages, not {type(cells).__name__}; select pairs with `shown`")
    messages = []
    for cell in cells:
        try:
            parts = tuple(_part(block) for block in cell["content"])
            messages.append(Message(role=cell["role"], content=parts))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a message of a prompt cannot be read: {error!r}; select the pairs again") from error
    return tuple(messages)


def _block(part: str | Picture, folder: Path) -> Json:
    if isinstance(part, Picture):
        return {"type": "image", "path": str(folder / file_name(part))}
    return {"type": "text", "text": part}


def _part(block: dict[str, str]) -> str | Picture:
    if block["type"] == "text":
        return block["text"]
    path = Path(block["path"])
    return ImageStore(path.parent).get(path.stem)
