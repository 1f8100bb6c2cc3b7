"""The commands that show how insightv is set up: `insightv plugins` and `insightv config`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from insightv.cli.terminal import AsJson, Changes, Config, out


def plugins(as_json: AsJson = False) -> None:
    """What is registered, from which distribution, and what failed to load and why."""
    from insightv.config.plugin_loading import default_registry

    registry = default_registry()
    names = [{"kind": entry.kind, "name": entry.name, **asdict(entry.source)} for entry in registry.entries()]
    failures = [{**asdict(failure.source), "reason": failure.reason} for failure in registry.failures]
    if as_json:
        out(json.dumps({"names": names, "failed": failures}))
        return
    for name in names:
        out(f"{name['kind']:<10} {name['name']:<14} {name['distribution']} {name['version']}")
    for failed in failures:
        out(f"failed     {failed['plugin']:<14} {failed['distribution']} {failed['version']}: {failed['reason']}")


def config(
    file: Config = None,
    changes: Changes = None,
    run: Annotated[Path | None, typer.Option("--run", help="Show those of this run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check settings and print them as resolved."""
    import tomli_w

    from insightv.config.plugin_loading import default_registry
    from insightv.config.roles import RoleFactory
    from insightv.config.settings import load_settings

    path = file or (run / "config.toml" if run else Path("insightv.toml") if Path("insightv.toml").is_file() else None)
    settings = load_settings(path, changes or ())
    from insightv.train.recipes import check_train

    factory = RoleFactory(default_registry(), settings)
    factory.check() if file or not run else factory.check_options()  # nothing is made of what may be a stranger's
    check_train(settings)
    table = settings.model_dump(mode="json", exclude_none=True)
    out(json.dumps(table) if as_json else tomli_w.dumps(table).rstrip())
