"""The command `insightv answer`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from insightv.cli.terminal import AsJson, Trust, out, refuse_beside_run, say
from insightv.errors import ConfigError
from insightv.records import LARGEST_COUNT


def answer(
    image: Annotated[Path, typer.Argument(help="A picture (JPEG, PNG, WEBP, GIF).")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    model: Annotated[str | None, typer.Option("--model", help="provider/model of the reasoning agent.")] = None,
    summary_model: Annotated[str | None, typer.Option("--summary-model", help="That of the summary agent.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="An OpenAI-compatible server.")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="A run, or a folder with its two checkpoints.")] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="With --run: the agents before training.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, max=LARGEST_COUNT)] = 0,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Ask the two agents: one reasons, one judges the reasoning and answers."""
    from insightv.reasoner.reasoner import Reasoner

    if run is not None and model is not None:
        raise ConfigError(f"--run {run} and --model {model} both name the agents; leave one of them out")
    if untrained and run is None:
        raise ConfigError("--untrained belongs to --run, and there is none; leave it out")
    if run is not None:
        refuse_beside_run(base_url, summary_model)
        reasoner = Reasoner.load(run, trained=False if untrained else None, trust=trust)
        say(f"asking {reasoner!r}")
    elif model is not None:
        reasoner = Reasoner.of(model, summary_model, base_url=base_url)
    else:
        raise ConfigError("name a model (--model tiny, or --model openai/NAME --base-url URL) or a run (--run DIR)")

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
