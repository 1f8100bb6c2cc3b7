"""The command `insightv evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from insightv.cli.terminal import AsJson, BadRows, Changes, Config, Run, Trust, err, interruptible, out, say, typed
from insightv.errors import ConfigError

if TYPE_CHECKING:
    from insightv.evaluate.evaluation import Evaluation
    from insightv.evaluate.results import Result


def evaluate(
    others: Annotated[list[Path] | None, typer.Argument(help="With --compare: two results (result.json).")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Held-out questions with answers.")] = None,
    run: Run = Path("runs/default"),
    system: Annotated[
        str,
        typer.Option("--system", help="reasoner, reasoning-only, summary-only, direct, direct-cot or multi-turn"),
    ] = "reasoner",
    compare: Annotated[bool, typer.Option("--compare", help="Compare two results: --compare A.json B.json.")] = False,
    against: Annotated[
        Path | None, typer.Option("--against", help="Compare with this result too: a folder's name here, or a path.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="provider/model, in place of the run's models.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="Where --model is served.")] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="The run's models before training.")] = False,
    config: Config = None,
    changes: Changes = None,
    seed: Annotated[int | None, typer.Option("--seed", help="In place of the run's seed.", min=0)] = None,
    name: Annotated[str | None, typer.Option("--name", help="The evaluation's folder in RUN/evaluations.")] = None,
    family: Annotated[str, typer.Option("--family", help="Key of meta to group results by.")] = "family",
    bad_rows: BadRows = "stop",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try what failed again.")] = False,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Accuracy of a system on held-out questions, and the comparison of two systems."""
    if others and not compare:
        raise ConfigError(f"{others[0]} stands alone: questions are named by --data FILE, results by --compare A B")
    if compare:
        compare_files(others or [], compare and data is None, as_json)
        return
    if data is None:
        raise ConfigError("name the held-out questions: --data FILE (or two results: --compare A.json B.json)")
    if base_url is not None and model is None:
        raise ConfigError("--base-url says where --model is served; give --model provider/NAME too")
    from insightv.evaluate.evaluation import Evaluation, has_trained, refuse_unasked, run_settings

    settings = run_settings(run, config, [*(changes or ()), *([] if seed is None else [f"seed={seed}"])], trust=trust)
    trained = model is None and not untrained and has_trained(run, system)
    if trained:
        refuse_unasked(run, system, settings)
    evaluation = Evaluation(
        run,
        data,
        system=system,
        model=model,
        base_url=base_url,
        settings=settings,
        trained=trained,
        name=name,
        family=family,
    )
    other = None if against is None else other_result(run, against)
    finish(evaluation, other, bad_rows, retry_failed, as_json)


def other_result(run: Path, against: Path) -> Result:
    """The result that `--against` names: an evaluation of the run by its folder's name, or any by its path.

    Raises:
        InputError: there is none.
    """
    from insightv.evaluate.results import read_result
    from insightv.runs.reader import EVALUATIONS

    own = run / EVALUATIONS / against
    return read_result(own if own.is_dir() else against)


def finish(
    evaluation: Evaluation, other: Result | None, bad_rows: Literal["stop", "skip"], retry_failed: bool, as_json: bool
) -> None:
    """Carry an evaluation out, print it, and leave with 4 where a model or the grader was not reached."""
    from insightv.cli.progress import EvaluationDisplay
    from insightv.cli.results_table import comparison_tables, result_tables
    from insightv.evaluate.results import RESULT, compare

    with EvaluationDisplay(err) as display:
        work = evaluation.arun(bad_rows=bad_rows, retry_failed=retry_failed, watch=display.show)
        result = interruptible(work, evaluation.interrupt, typed(*sys.argv[1:]))
    if as_json:
        out(json.dumps(result.as_json() | ({} if other is None else {"against": compare(other, result)})))
    else:
        out(result_tables(result).rstrip())
        out(f"result: {evaluation.folder / RESULT}")
        if other is not None:
            out(comparison_tables(compare(other, result)).rstrip())
    status = evaluation.status()
    if status.questions.bad_rows:
        say(f"{status.questions.bad_rows} faults in rows that were left out")
    if status.paths.failed or status.unjudged:
        say(f"{status.paths.failed} replies and {status.unjudged} grades failed; try them again with --retry-failed")
        raise typer.Exit(4)


def compare_files(files: list[Path], asked: bool, as_json: bool) -> None:
    """Print the comparison of two results.

    Raises:
        ConfigError: there are not two, or something else was asked for as well.
        InputError: a file is no result.
    """
    from insightv.cli.results_table import comparison_tables
    from insightv.evaluate.results import compare, read_result

    if not asked or len(files) != 2:
        raise ConfigError("to compare, give two results and nothing else: insightv evaluate --compare A.json B.json")
    found = compare(read_result(files[0]), read_result(files[1]))
    out(json.dumps(found) if as_json else comparison_tables(found).rstrip())
