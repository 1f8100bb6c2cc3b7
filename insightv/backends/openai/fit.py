"""What of a request a server is sent: which fields are left out or have another name, and where instructions stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from insightv.errors import ConfigError, did_you_mean
from insightv.records import Message

Structured = Literal["schema", "json", "prompt"]
SystemRole = Literal["system", "developer", "user"]
FIELDS = ("model", "temperature", "top_p", "max_tokens", "seed", "n", "response_format", "stream_options")
"""Fields that a server may have another name for, or no use for."""
_WEAKER: dict[Structured, Structured] = {"schema": "json", "json": "prompt"}


@dataclass(frozen=True, slots=True)
class Fit:
    """`omit` are fields to leave out, `rename` their names where these are others.

    `system` is the role that instructions have; with "user" they begin the user's first turn. `structured` says how a
    schema is asked for.
    """

    omit: frozenset[str] = frozenset()
    rename: tuple[tuple[str, str], ...] = ()
    system: SystemRole = "system"
    structured: Structured = "schema"

    @property
    def draws_one(self) -> bool:
        """Whether a request draws one reply only."""
        return "n" in self.omit

    def fields(self, fields: Mapping[str, object]) -> dict[str, object]:
        """The fields as the server takes them."""
        names = dict(self.rename)
        return {names.get(name, name): value for name, value in fields.items() if name not in self.omit}

    def messages(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages with the instructions in the user's first turn, where they are to stand there."""
        if self.system != "user" or not any(message.role == "system" for message in messages):
            return messages
        told = [part for message in messages if message.role == "system" for part in message.parts]
        rest = [message for message in messages if message.role != "system"]
        first = next((place for place, message in enumerate(rest) if message.role == "user"), None)
        if first is None:
            return [Message(role="user", content=tuple(told)), *rest]
        rest[first] = Message(role="user", content=(*told, *rest[first].parts))
        return rest

    def after(self, lesson: Lesson) -> Fit:
        """The fit that follows from what a server has refused."""
        if lesson.field == "system":
            return replace(self, system="user")
        if lesson.field == "response_format":
            return replace(self, structured=_WEAKER[lesson.sent]) if lesson.sent == self.structured else self
        if lesson.name:
            return replace(self, rename=tuple({**dict(self.rename), lesson.field: lesson.name}.items()))
        return replace(self, omit=self.omit | {lesson.field})


@dataclass(frozen=True, slots=True)
class Lesson:
    """A field that a server has refused, with the name that it has for it, if it has one.

    Of response_format `sent` is how the schema was asked for, which is not "prompt".
    """

    field: str
    name: str = ""
    sent: Structured | None = None

    @property
    def cure(self) -> str:
        """What to write into the table of the model so that nothing is refused in the first place."""
        if self.field == "system":
            return 'system = "user"'
        if self.sent is not None:
            return f'structured = "{_WEAKER[self.sent]}"'
        return f'rename = {{{self.field} = "{self.name}"}}' if self.name else f'omit = ["{self.field}"]'


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a service."""

    omit: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    system: SystemRole = "system"
    structured: Structured = "schema"


PROFILES: Mapping[str, Profile] = {
    "openai": Profile(),
    "openai-reasoning": Profile(omit=("temperature", "top_p"), rename=(("max_tokens", "max_completion_tokens"),)),
    # top_p is refused beside temperature; seed and response_format are passed over in silence, n must be 1.
    "anthropic": Profile(omit=("top_p", "seed", "n"), structured="prompt"),
    "gemini": Profile(omit=("seed",)),
    "mistral": Profile(rename=(("seed", "random_seed"),)),
    "deepseek": Profile(omit=("seed", "n"), structured="json"),
    "llama-cpp": Profile(omit=("n",), structured="json"),
    "llama-vision": Profile(system="user"),
}


def fit_of(
    profile: str | None = None,
    omit: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    system: str | None = None,
    structured: str | None = None,
) -> Fit:
    """The fit that options make; they add to a profile's fields, and replace its other words.

    Raises:
        ConfigError: a word or a field is unknown.
    """
    if profile is not None and profile not in PROFILES:
        hint = did_you_mean(str(profile), PROFILES, f"known: {', '.join(PROFILES)}")
        raise ConfigError(f"profile is {profile!r}, which is no known service; {hint}")
    known = PROFILES[profile or "openai"]
    if isinstance(omit, str) or not all(isinstance(name, str) for name in omit or ()):
        raise ConfigError(f'omit is {omit!r}; it is a list of fields like ["temperature", "top_p"]')
    names = rename or {}
    if not isinstance(names, Mapping) or not all(isinstance(name, str) and name for name in names.values()):
        raise ConfigError(f'rename is {rename!r}; it is a table like {{max_tokens = "max_completion_tokens"}}')
    for option, fields in (("omit", omit or ()), ("rename", names)):
        if unknown := [name for name in fields if name not in FIELDS]:
            hint = did_you_mean(unknown[0], FIELDS, f"known: {', '.join(FIELDS)}")
            raise ConfigError(f"{option} names {unknown[0]!r}, which insightv does not send; {hint}")
    if system is not None and system not in get_args(SystemRole):
        raise ConfigError(f"system is {system!r}; it is one of {', '.join(get_args(SystemRole))}")
    if structured is not None and structured not in get_args(Structured):
        raise ConfigError(f"structured is {structured!r}; it is one of {', '.join(get_args(Structured))}")
    return Fit(
        frozenset((*known.omit, *(omit or ()))),
        tuple({**dict(known.rename), **names}.items()),
        system or known.system,  # type: ignore[arg-type]  # checked above
        structured or known.structured,  # type: ignore[arg-type]
    )
