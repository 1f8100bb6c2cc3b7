"""The `replay` backend: recorded calls answered from a file, for tests and demos. Nothing is asked of any model.

    model = replay("calls.jsonl")      # in a configuration: model = "replay/calls.jsonl"

A line of the file is a `RecordedCall`, as a run's journal is exported. Only the keys and where their lines begin are
held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from insightv.backends.call_key import RecordedCall, call_key
from insightv.errors import ConfigError, ModelError
from insightv.interfaces import ChatModel
from insightv.records import Completion, Message, Sampling, Schema

_SHOWN = 20


class ReplayModel(ChatModel):
    """Answers each call with the replies recorded under its key, whichever model of the file gave them.

    A call that was recorded more than once (two questions may ask the same) gets its recordings in their order, one
    each time, and the last one from then on.
    """

    def __init__(self, path: Path) -> None:
        self.name: str = f"replay/{path}"
        self._path = path
        self._file: BinaryIO | None = None
        try:
            with path.open("rb") as file:
                self._models, self._places = _index(file, path)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError(f"the recording {str(path)!r} cannot be read: {reason}; name an existing file") from None

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, *, n: int = 1, schema: Schema | None = None
    ) -> list[Completion]:
        """See `ChatModel.chat`.

        Raises:
            ModelError: code "not_recorded": the file does not have this call.
        """
        for model in self._models:
            key = call_key(model, messages, sampling, schema=schema, n=n)
            places = self._places.get(bytes.fromhex(key))
            if places is not None:
                place = places.pop(0) if len(places) > 1 else places[0]
                return list(self._call_at(place, key).completions)
        asked = f"{len(messages)} messages, seed {sampling.seed}, schema {schema.name if schema else None}, n {n}"
        raise ModelError(
            "not_recorded",
            f"{self._path} has no call like this one ({asked}) among {len(self._places)} calls of {self._models}; "
            "replay with the questions, prompts, sampling and seed of the recorded run, or record anew",
        )

    async def aclose(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _call_at(self, place: int, key: str) -> RecordedCall:
        if self._file is None:
            self._file = self._path.open("rb")
        self._file.seek(place)
        try:
            call = RecordedCall.model_validate_json(self._file.readline())
        except ValidationError:
            call = None
        if call is None or call.key != key:
            raise ModelError("not_recorded", f"{self._path} was changed while it was replayed; open it anew")
        return call


def replay(model: str) -> ReplayModel:
    """A model that answers from the recording at the path `model`.

    Raises:
        ConfigError: the file cannot be read, or lines of it are not recorded calls; all are named.
    """
    return ReplayModel(Path(model).expanduser())


def _index(file: BinaryIO, path: Path) -> tuple[list[str], dict[bytes, list[int]]]:
    """The models of a recording in order of appearance, and where each key's lines begin."""
    models: dict[str, None] = {}
    places: dict[bytes, list[int]] = {}
    bad: list[str] = []
    for number, place, line in _lines(file):
        try:
            call = RecordedCall.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(map(str, first["loc"])) or "the line"
            bad.append(f"{path}:{number}: {field}: {first['msg']}")
            continue
        models[call.model] = None
        places.setdefault(bytes.fromhex(call.key), []).append(place)
    if bad or not places:
        listed = "\n".join(bad[:_SHOWN]) or f"{path}: no recorded calls"
        more = f"\n... and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise ConfigError(f"not a recording; export it anew from its run:\n{listed}{more}")
    return list(models), places


def _lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and bytes of each line that is not blank."""
    place = 0
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield number, place, line
        place += len(line)
