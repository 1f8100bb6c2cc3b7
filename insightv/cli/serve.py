"""The command `insightv serve`."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from insightv.cli.terminal import AsJson, Changes, Trust, out, refuse_beside_run, say
from insightv.errors import ConfigError, require


def serve(
    run: Annotated[Path | None, typer.Option("--run", help="Serve the agents of this run.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="provider/model of the reasoning agent.")] = None,
    summary_model: Annotated[str | None, typer.Option("--summary-model", help="That of the summary agent.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="An OpenAI-compatible server.")] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="With --run: the agents before training.")] = False,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on; 0 for a free one.")] = None,
    changes: Changes = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Serve the two agents to OpenAI clients, and a page to try them."""
    for package in ("starlette", "uvicorn"):
        require(package, "serve")
    if run is not None and model is None:
        refuse_beside_run(base_url, summary_model)
    if model is not None:
        _refuse_beside_model(changes or (), untrained)
    from insightv.config.settings import load_settings
    from insightv.reasoner.checkpoint_agents import TWO_AGENTS, confirm_agents, is_trained
    from insightv.reasoner.reasoner import Reasoner
    from insightv.server.listen import serve as listen

    file = None if run is None else run / "config.toml"
    own = [("host", host), ("port", port)]
    set_here = [f"serve.{name}={json.dumps(value)}" for name, value in own if value is not None]
    settings = load_settings(file if file and file.is_file() else None, [*(changes or ()), *set_here])
    if model is not None:
        reasoner = Reasoner.of(model, summary_model, base_url=base_url)
    elif run is not None:
        trained = () if untrained else [agent for agent in TWO_AGENTS if is_trained(run, [agent])]
        confirm_agents(run, settings, trained, serving=True, given=[*(changes or ()), *set_here], trust=trust)
        reasoner = Reasoner.load(run, trained=False if untrained else None, settings=settings)
    else:
        raise ConfigError("name a run (--run DIR), or a model (--model tiny, or --model openai/NAME --base-url URL)")
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
