"""The commands that ask the two agents: `insightv answer` and `insightv serve`."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from insightv.cli.terminal import AsJson, Changes, Trust, out, say
from insightv.errors import ConfigError, require
from insightv.records import LARGEST_COUNT

if TYPE_CHECKING:
    from insightv.config.settings import Settings
    from insightv.reasoner.reasoner import Reasoner

Model = Annotated[str | None, typer.Option("--model", help="provider/model of the reasoning agent.")]
SummaryModel = Annotated[str | None, typer.Option("--summary-model", help="That of the summary agent.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="An OpenAI-compatible server.")]
Untrained = Annotated[bool, typer.Option("--untrained", help="With --run: the agents before training.")]


def agents_of(
    run: Path | None,
    model: str | None,
    summary_model: str | None,
    base_url: str | None,
    untrained: bool,
    settings: Settings | None = None,
    *,
    trust: bool = False,
) -> Reasoner:
    """The agents that the options name: those of `--model`, else those of `--run`.

    Raises:
        ConfigError: neither is given, or an option would not be used.
    """
    from insightv.reasoner.reasoner import Reasoner

    if model is not None:
        return Reasoner.of(model, summary_model, base_url=base_url)
    if run is None:
        raise ConfigError("name a model (--model tiny, or --model openai/NAME --base-url URL) or a run (--run DIR)")
    for option, value in (("--base-url", base_url), ("--summary-model", summary_model)):
        if value is not None:
            raise ConfigError(
                f"{option} {value} belongs to --model and would not be used: the agents are those of --run; give "
                "--model in its place, or set the agents in the run's config.toml"
            )
    return Reasoner.load(run, trained=False if untrained else None, settings=settings, trust=trust)


def answer(
    image: Annotated[Path, typer.Argument(help="A picture (JPEG, PNG, WEBP, GIF).")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    model: Model = None,
    summary_model: SummaryModel = None,
    base_url: BaseUrl = None,
    run: Annotated[Path | None, typer.Option("--run", help="A run, or a folder with its two checkpoints.")] = None,
    untrained: Untrained = False,
    seed: Annotated[int, typer.Option("--seed", min=0, max=LARGEST_COUNT)] = 0,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Ask the two agents: one reasons, one judges the reasoning and answers."""
    if run is not None and model is not None:
        raise ConfigError(f"--run {run} and --model {model} both name the agents; leave one of them out")
    if untrained and run is None:
        raise ConfigError("--untrained belongs to --run, and there is none; leave it out")
    reasoner = agents_of(run, model, summary_model, base_url, untrained, trust=trust)
    if run is not None:
        say(f"asking {reasoner!r}")

    async def ask() -> Any:
        try:
            await reasoner.acheck()
            return await reasoner.aanswer(image, question, seed=seed)
        finally:
            await reasoner.aclose()

    found = asyncio.run(ask())
    if model is not None and model.partition("/")[0] == "tiny":
        say("note: the embedded model has only ever seen its own bar charts and tables; on anything else it guesses")
    if as_json:
        out(json.dumps(found.model_dump(mode="json")))
        return
    for step in found.path.steps if found.path else ():
        out(f"### {step.title}\n{step.content}\n")
    if found.path and found.path.status != "ok":
        say(f"the reasoning ended as {found.path.status} ({found.path.code}): {found.path.detail}")
    out(f"answer: {found.text}")


def serve(
    run: Annotated[Path | None, typer.Option("--run", help="Serve the agents of this run.")] = None,
    model: Model = None,
    summary_model: SummaryModel = None,
    base_url: BaseUrl = None,
    untrained: Untrained = False,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on; 0 for a free one.")] = None,
    changes: Changes = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Serve the two agents to OpenAI clients, and a page to try them."""
    for package in ("starlette", "uvicorn"):
        require(package, "serve")
    if model is not None:
        _refuse_beside_model(changes or (), untrained)
    from insightv.config.settings import load_settings
    from insightv.reasoner.checkpoint_agents import TWO_AGENTS, confirm_agents, is_trained
    from insightv.server.listen import serve as listen

    file = None if run is None else run / "config.toml"
    own = [("host", host), ("port", port)]
    set_here = [f"serve.{name}={json.dumps(value)}" for name, value in own if value is not None]
    settings = load_settings(file if file and file.is_file() else None, [*(changes or ()), *set_here])
    if run is not None and model is None:
        trained = () if untrained else [agent for agent in TWO_AGENTS if is_trained(run, [agent])]
        confirm_agents(run, settings, trained, serving=True, given=[*(changes or ()), *set_here], trust=trust)
    reasoner = agents_of(run, model, summary_model, base_url, untrained, settings, trust=trust)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")

    def ready(url: str) -> None:
        if as_json:
            out(json.dumps({"url": url}))
            sys.stdout.flush()
        say(f"serving on {url} (a page to try it there; the API under {url}/v1); stop with Ctrl-C")

    number = asyncio.run(listen(reasoner, settings.serve, max_pixels=settings.images.max_pixels, ready=ready))
    say("stopped")
    if number:
        raise typer.Exit(128 + number)


def _refuse_beside_model(changes: Sequence[str], untrained: bool) -> None:
    """Refuse what is about the agents of a run where `--model` names them.

    Raises:
        ConfigError: there is such a thing.
    """
    unused = [f"--set {change}" for change in changes if change.split(".", 1)[0].strip() not in ("serve", "images")]
    if untrained:
        unused.append("--untrained")
    if unused:
        raise ConfigError(
            f"{unused[0]} is about the agents of a run and would not be used: they are those of --model; leave it out, "
            "or give --run without --model"
        )
