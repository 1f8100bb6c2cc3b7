"""Errors as they come back from another process."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from insightv.errors import InsightvError, Interrupted, ModelError, RunChanged
from insightv.inputs.image_error import ImageError
from insightv.records import Usage


def kinds(kind: type[InsightvError]) -> Iterator[type[InsightvError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from kinds(each)


@pytest.mark.parametrize(
    "error",
    [
        ModelError("timeout", "no answer", usage=Usage(requests=3), kept="hm"),
        ImageError("corrupt", "no image"),
        RunChanged("other", ("seed: 1, not 2",)),
        Interrupted(15),
        *[kind("a text") for kind in kinds(InsightvError) if "__init__" not in vars(kind)],
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_pickled_with_all_that_it_has(error: InsightvError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert (str(back), back.exit_code, vars(back)) == (str(error), error.exit_code, vars(error))
