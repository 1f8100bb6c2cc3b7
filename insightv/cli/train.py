"""The command `insightv train`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from insightv.cli.terminal import AsJson, Changes, Run, Trust, err, interruptible, out, say, typed
from insightv.config.consent import consented
from insightv.config.file import edited_origin
from insightv.config.trust import confirm
from insightv.errors import ConfigError, InputError
from insightv.runs.reader import CONFIG


def train(
    run: Run = Path("runs/default"),
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="multi-agent, dpo, iterative-dpo, external, direct, multi-turn or summary-only"),
    ] = None,
    base: Annotated[str | None, typer.Option("--base", help="Model directory, id of the hub, or tiny/base.")] = None,
    heldout: Annotated[str | None, typer.Option("--heldout", help="Questions that nothing is trained on.")] = None,
    external: Annotated[str | None, typer.Option("--external", help="Preference data of somebody else's.")] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Take the section train from these settings, not the run's.", dir_okay=False),
    ] = None,
    changes: Changes = None,
    allow_change: Annotated[
        bool, typer.Option("--allow-change", help="Train anew what was trained with something else.")
    ] = False,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Train the agents of a run, or continue the training: supervised, rounds of DPO, the summary agent last."""
    from insightv.cli.progress import EvaluationDisplay
    from insightv.cli.status_table import event_lines
    from insightv.pipeline import Pipeline

    if config is None and (edited := edited_origin(run / CONFIG)) is not None:
        say(f"{edited} has changed since the run was made with it: what its [train] says is used")
    options = {"recipe": recipe, "base": base, "heldout": heldout, "external": external}
    settings = train_settings(run, config, changes or [], trust=trust, **options)
    pipeline = Pipeline(run=run, settings=settings)
    if pipeline.settings.train.heldout is None:
        say(
            "no held-out questions (give --heldout FILE): nothing will say whether a stage helped, and no round can be "
            "rolled back"
        )

    with EvaluationDisplay(err) as display:
        work = pipeline.atrain(
            allow_change=allow_change, watch=display.show, tell=lambda event, stage: say(event_lines(event, stage))
        )
        found = interruptible(work, pipeline.interrupt, typed(*sys.argv[1:]))
    if as_json:
        out(json.dumps(found.as_json()))
    else:
        for name, folder in found.checkpoints.items():
            out(f"{name + ' agent':<16} {folder}")
    if found.failed:
        say(f"{found.failed} paths or held-out questions failed; see: insightv status --run {run} --json")
        raise typer.Exit(4)


def train_settings(
    run: Path, config: Path | None, changes: list[str], *, trust: bool = False, **options: str | None
) -> Any:
    """The run's settings; `[train]` from `config` where given, with the changes and the `options` on top.

    Without one, what `[train]` says in the file that the run was made with goes before what it said then.

    Raises:
        InputError: there is no run.
        ConfigError: settings are wrong, or those of the run's folder have no consent (`trust` gives it).
    """
    from insightv.config.settings import check_settings, load_settings

    if not (run / CONFIG).is_file():
        raise InputError(f"there is no run in {str(run)!r} (no {CONFIG}); make one with: insightv build")
    if built := [change for change in changes if change.lstrip().startswith("generator.")]:
        raise ConfigError(
            f"--set {built[0]}: that says how the run was built, and training does not do it again; leave it out, or "
            "build with it"
        )
    source = config or edited_origin(run / CONFIG)
    of_train = [change for change in changes if change.lstrip().startswith("train.")] if source else []
    others = [change for change in changes if change not in of_train]
    table = load_settings(run / CONFIG, others).model_dump(exclude_unset=True)
    own, given = {} if config else dict(table.get("train", {})), list(changes)
    if source is not None:
        said = load_settings(source, of_train).model_dump(exclude_unset=True).get("train", {})
        own |= said
        if config or consented(run).made_from(source):
            given += [f"train.{name}" for name in said]
    for name, value in options.items():
        if value is not None:
            file = name in ("heldout", "external") and not value.startswith("hf:")
            own[name] = str(Path(value).absolute()) if file else value
    settings = check_settings(table | {"train": own}, "the settings")
    confirm(run, settings, given=given, trust=trust)
    return settings
