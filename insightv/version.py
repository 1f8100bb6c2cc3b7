"""Which version of insightv this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """The version as installed; "unknown" of a source tree that is not."""
    try:
        return version("insightv")
    except PackageNotFoundError:
        return "unknown"
