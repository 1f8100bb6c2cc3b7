"""The command `insightv`.

Exit codes: 0 done, 1 a fault inside insightv, 2 input or configuration is wrong, 3 stopped and resumable, 4 done but
some items failed, 130 or 143 interrupted and resumable.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.markup import escape

from insightv.cli_evaluate import evaluate
from insightv.errors import ConfigError, InsightvError, require
from insightv.terminal import AsJson, Changes, Config, Run, err, interruptible, out, say

app = typer.Typer(
    name="insightv",
    help="Build checked, step-by-step visual reasoning data, and ask the two-agent reasoner.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def build(
    questions: Annotated[
        str | None, typer.Argument(help="JSONL, CSV or Parquet file, or hf:NAME; may be left out on resume.")
    ] = None,
    run: Run = Path("runs/default"),
    config: Config = None,
    changes: Changes = None,
    bad_rows: Annotated[str, typer.Option("--bad-rows", help="stop or skip")] = "stop",
    allow_change: Annotated[bool, typer.Option("--allow-change", help="Go on with changed settings or data.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed paths and scores again.")] = False,
    datasets: Annotated[bool, typer.Option(help="Write the datasets at the end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Make a run from questions, or go on with it: generate, assess, select."""
    from insightv.pipeline import Pipeline
    from insightv.progress import ProgressDisplay

    if bad_rows not in ("stop", "skip"):
        raise ConfigError(f"--bad-rows {bad_rows!r} is not known; it is stop or skip")
    if config is None and not (run / "config.toml").is_file() and Path("insightv.toml").is_file():
        config = Path("insightv.toml")
    pipeline = Pipeline.from_config(config, run=run, changes=changes or ())
    with ProgressDisplay(err) as display:
        work = pipeline.abuild(
            questions,
            bad_rows=bad_rows,  # type: ignore[arg-type]  # checked above
            allow_change=allow_change,
            retry_failed=retry_failed,
            datasets=datasets,
            watch=display.show,
        )
        status = interruptible(work, pipeline.interrupt, f"insightv build --run {run}")
    finish_build(status, run, as_json)


def finish_build(status: dict[str, Any], run: Path, as_json: bool) -> None:
    """Print a finished build and leave with 4 where items failed."""
    if as_json:
        out(json.dumps(status))
    else:
        out(funnel(status))
        if (run / "datasets").is_dir():
            out(f"datasets: {run / 'datasets'}")
    if status["questions"]["bad_rows"]:
        say(f"{status['questions']['bad_rows']} faults in rows that were left out; see: insightv status --run {run}")
    if status["paths"]["failed"] or status["unjudged"]:
        say(
            f"{status['paths']['failed']} paths and {status['unjudged']} scores failed; try them again with: "
            f"insightv build --run {run} --retry-failed"
        )
        raise typer.Exit(4)


def funnel(status: dict[str, Any]) -> str:
    """A run's counts as a few lines for people."""
    questions, paths = status["questions"], status["paths"]
    codes = ", ".join(f"{code} {count}" for code, count in paths["by_code"].items())
    tokens = ", ".join(f"{count:,} {name}" for name, count in status["tokens"].items())
    lines = [
        f"questions  {questions['done']} of {questions['total']} done",
        f"paths      {paths['total']}: ok {paths['ok']}, rejected {paths['rejected']}, failed {paths['failed']}"
        + (f" ({codes})" if codes else ""),
        "bands      " + ", ".join(f"{name} {count}" for name, count in status["bands"].items()),
        f"requests   {status['requests']}; tokens: {tokens}" + (f"; ${status['usd']:.2f}" if status["usd"] else ""),
    ]
    return "\n".join(lines)


@app.command()
def status(run: Run = Path("runs/default"), as_json: AsJson = False) -> None:
    """How a run stands: questions, paths, bands, what was spent, what failed."""
    from insightv.progress import clock
    from insightv.run import load_run

    with load_run(run) as reader:
        found, bad_rows = reader.status(), reader.bad_rows()
    if as_json:
        out(json.dumps({**found, "rows_left_out": bad_rows}))
        return
    out(funnel(found))
    out(f"time       {clock(found['elapsed_s'])}")
    if found["faults"]:
        out("faults     " + ", ".join(f"{code} {count}" for code, count in found["faults"].items()))
    for row in bad_rows[:20]:
        out(f"left out   {row['file']}:{row['line']}: {row['id']}: {row['field']}: {row['reason']}")
    if len(bad_rows) > 20:
        out(f"           ... and {len(bad_rows) - 20} more; see --json")


@app.command(name="export")
def export_command(
    what: Annotated[str, typer.Option("--what", help="paths, reason, summary, preference or calls")],
    target: Annotated[Path, typer.Option("--out", help="File or folder to write.")],
    form: Annotated[str, typer.Option("--format", help="jsonl, parquet, trl, llamafactory or swift")] = "jsonl",
    run: Run = Path("runs/default"),
    as_json: AsJson = False,
) -> None:
    """Write a run's paths or training sets for other programs; `calls` is what replay/FILE reads."""
    if what == "calls":
        from insightv.selection import export_calls

        path, rows = target, export_calls(run, target)
    else:
        from insightv.selection import export

        made = export(run, what, form, target)
        path, rows = made.path, made.rows
    out(json.dumps({"path": str(path), "rows": rows}) if as_json else f"{rows} rows in {path}")


@app.command()
def answer(
    image: Annotated[Path, typer.Argument(help="A picture (JPEG, PNG, WEBP, GIF).")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    model: Annotated[str | None, typer.Option("--model", help="provider/model of the reasoning agent.")] = None,
    summary_model: Annotated[str | None, typer.Option("--summary-model", help="That of the summary agent.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="An OpenAI-compatible server.")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Use the agents of this run.")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    as_json: AsJson = False,
) -> None:
    """Ask the two agents: one reasons, one judges the reasoning and answers."""
    from insightv.reasoner import Reasoner

    if run is not None and model is None:
        reasoner = Reasoner.load(run)
    elif model is not None:
        options: dict[str, Any] = {"base_url": base_url} if base_url else {}
        reasoner = Reasoner.of(model, summary_model, **options)
    else:
        raise ConfigError("name a model (--model tiny, or --model openai/NAME --base-url URL) or a run (--run DIR)")

    async def ask() -> Any:
        try:
            return await reasoner.aanswer(image, question, seed=seed)
        finally:
            await reasoner.aclose()

    found = asyncio.run(ask())
    if model is not None and model.partition("/")[0] == "tiny":
        say("note: the embedded model has only ever seen its own bar charts and tables; on anything else it guesses")
    if as_json:
        out(found.model_dump_json())
        return
    for step in found.path.steps if found.path else ():
        out(f"### {step.title}\n{step.content}\n")
    if found.path and found.path.status != "ok":
        say(f"the reasoning ended as {found.path.status} ({found.path.code}): {found.path.detail}")
    out(f"answer: {found.text}")


@app.command()
def plugins(as_json: AsJson = False) -> None:
    """What is registered, from which distribution, and what failed to load and why."""
    from insightv.plugins import default_registry

    registry = default_registry()
    names = [
        {
            "kind": entry.kind,
            "name": entry.name,
            "plugin": entry.source.plugin,
            "distribution": entry.source.distribution,
            "version": entry.source.version,
        }
        for entry in registry.entries()
    ]
    failures = [
        {
            "plugin": failure.source.plugin,
            "distribution": failure.source.distribution,
            "version": failure.source.version,
            "reason": failure.reason,
        }
        for failure in registry.failures
    ]
    if as_json:
        out(json.dumps({"names": names, "failed": failures}))
        return
    for name in names:
        out(f"{name['kind']:<10} {name['name']:<14} {name['distribution']} {name['version']}")
    for failed in failures:
        out(f"failed     {failed['plugin']:<14} {failed['distribution']} {failed['version']}: {failed['reason']}")


@app.command(name="config")
def config_command(
    config: Config = None,
    changes: Changes = None,
    run: Annotated[Path | None, typer.Option("--run")] = None,
    as_json: AsJson = False,
) -> None:
    """Check settings and print them as resolved."""
    import tomli_w

    from insightv.config import load_settings
    from insightv.plugins import default_registry
    from insightv.wiring import Workshop

    path = config or (
        run / "config.toml" if run else Path("insightv.toml") if Path("insightv.toml").is_file() else None
    )
    settings = load_settings(path, changes or ())
    Workshop(default_registry(), settings).check()
    table = settings.model_dump(mode="json", exclude_none=True)
    out(json.dumps(table) if as_json else tomli_w.dumps(table).rstrip())


@app.command()
def demo(
    run: Run = Path("runs/demo"),
    questions: Annotated[int, typer.Option(help="How many chart questions.", min=4, max=2000)] = 60,
    paths: Annotated[int, typer.Option(help="Paths per question.", min=1, max=64)] = 4,
) -> None:
    """Build a run of chart questions with the embedded model, and show what came out."""
    from insightv.demo import demo_settings, show_run, write_demo_questions
    from insightv.pipeline import Pipeline
    from insightv.progress import ProgressDisplay

    for package, extra in (("transformers", "hf"), ("datasets", "data")):
        require(package, extra)
    out(f"Drawing {questions} chart questions; the embedded model writes {paths} paths of reasoning for each.")
    file = write_demo_questions(run.with_name(run.name + "-questions"), questions)
    pipeline = Pipeline(run=run, settings=demo_settings(paths))
    with ProgressDisplay(err) as display:
        found = interruptible(
            pipeline.abuild(file, watch=display.show), pipeline.interrupt, f"insightv build --run {run}"
        )
    out("\n== The funnel ==\n" + funnel(found))
    show_run(run, out)
    out(f"\nMore: insightv status --run {run}; insightv export --run {run} --what paths --out paths.jsonl")


app.command()(evaluate)


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        code = app(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except InsightvError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    # Whatever else arrives here is a fault of our own.
    except Exception:
        traceback.print_exc()
        say("this is a fault inside insightv; please report it with the lines above")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
