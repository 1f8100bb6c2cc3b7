"""What may not stand in settings: secrets, and values that a run's `config.toml` could not give back.

Knows no section and no key of ours; `where` is the place of a value, from the root.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import date
from datetime import time as clock
from pathlib import PurePath
from urllib.parse import urlsplit

from pydantic import BaseModel

from insightv.errors import ConfigError

_SECRET_WORDS = ("api_key", "apikey", "secret", "password", "access_token", "authorization")
_NAMED_KEY = re.compile(r"(?i)(?:^|_)(?:key|token|passwd|pwd|credentials?)$")
_LIKE_A_VALUE = re.compile(r"(?=.*[0-9])[A-Za-z0-9_.+/=-]{8,}")
"""What a key or token may be: such options as `eos_token = "</s>"` or `sort_key = "created"` are none."""
_KEY = re.compile(r"(?:sk|pk|hf|gsk|xai)[-_][A-Za-z0-9_*.-]{16,}|AIza[A-Za-z0-9_-]{20,}|AKIA[A-Z0-9]{12,}")


def _leaves(value: object, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Each value that is no table and no list, with its place."""
    if isinstance(value, Mapping | list | tuple):
        for key, each in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _leaves(each, (*where, str(key)))
    else:
        yield where, value


def refuse_secrets(table: object) -> None:
    """Refuse keys, tokens and passwords, by their names and by what they look like.

    Raises:
        ConfigError: there is one; its value is not shown.
    """
    for where, value in _leaves(table):
        for depth, key in enumerate(where, 1):
            name, text = key.lower(), value if depth == len(where) else None
            named = _NAMED_KEY.search(name) and isinstance(text, str) and _LIKE_A_VALUE.fullmatch(text)
            if (named or any(word in name for word in _SECRET_WORDS)) and not name.endswith("_env"):
                raise ConfigError(
                    f"{'.'.join(where[:depth])}: a key does not belong into the configuration; put it into an "
                    "environment variable and name that variable in api_key_env"
                )
        if isinstance(value, str):
            _refuse_secret_text(value, where)


def refuse_unwritable(table: object) -> None:
    """Refuse what cannot be kept as it is in a run's settings, and compared when the run is continued.

    Raises:
        ConfigError: a number is not finite, or a value is a date, a time or an object.
    """
    for where, value in _leaves(table):
        place = ".".join(where)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{place} = {value}: a number is needed; leave it out, or give a finite one")
        if isinstance(value, date | clock):
            raise ConfigError(f"{place} = {value}: dates and times are given as text, in quotes")
        if not isinstance(value, str | int | float | PurePath | BaseModel | None):
            cure = "give Pipeline the part that uses it as an object"
            raise ConfigError(f"{place} is of type {type(value).__name__}, which settings cannot hold; {cure}")


def _refuse_secret_text(text: str, where: tuple[str, ...]) -> None:
    if where and where[-1].endswith("_env"):
        if not text.isidentifier() or _KEY.fullmatch(text):
            raise ConfigError(f"{'.'.join(where)}: this is the name of an environment variable, not a key itself")
    elif _KEY.fullmatch(text):
        raise ConfigError(f"{'.'.join(where)}: this looks like a key; put it into an environment variable")
    elif "://" in text and "\n" not in text and " " not in text:
        try:
            parts = urlsplit(text)
        except ValueError:  # the text is not shown: what it holds cannot be told
            raise ConfigError(f"{'.'.join(where)}: this is not a URL; write it like 'http://host:8000/v1'") from None
        if parts.username or parts.password:
            raise ConfigError(f"{'.'.join(where)}: the URL holds a user name or password; name a key in api_key_env")
