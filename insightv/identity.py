"""What of a role makes up a run's identity: all that changes results, and nothing that says only where a model is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from insightv.config import RoleTable
from insightv.wiring import Part

_FREE_KEYS = {"base_url", "api_key_env", "backend", "mode"}
"""Keys of a role's table that say where a model is reached, not what it answers."""
_FREE_OPTIONS = {
    *("deadline_s", "connections", "max_reply_bytes", "gather_s", "poll_s", "proxy"),
    *("program", "arguments", "environment", "start_s", "restarts", "log_folder"),
    *("device", "batch", "threads", "cache_gb"),
}
"""Options of our own backends that say how a model is run and reached; others (a revision, a dtype) may change replies.

Options of a plugin's backend all count, whatever their names: only its author knows what they change.
"""


def table_identity(table: RoleTable) -> dict[str, Any]:
    """A role's table, as JSON has it, without the keys that say only where its model is reached."""
    return {k: v for k, v in table.model_dump(mode="json", exclude_none=True).items() if k not in _FREE_KEYS}


def role_identity(part: Part[Any], table: RoleTable | None) -> dict[str, Any]:
    """What of a role changes results: its options, its prompts' hashes, and a plugin's distribution and version."""
    role = part.role
    identity: dict[str, Any] = {"class": f"{type(role).__module__}.{type(role).__qualname__}"}
    if table is not None:
        identity |= table_identity(table)
        own = part.backend is not None and part.backend.distribution == "insightv"
        if options := {k: v for k, v in table.backend.items() if not own or k not in _FREE_OPTIONS}:
            identity["backend"] = options
    prompts = getattr(role, "prompts", None)
    if isinstance(prompts, Mapping):
        identity["prompts"] = {
            name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(prompts.items())
        }
    for name, source in (("plugin", part.source), ("backend_plugin", part.backend)):
        if source is not None and source.distribution != "insightv":
            identity[name] = f"{source.distribution} {source.version}"
    return identity
