"""The card of a trained model: what it was trained from, on what and how, in a form that people and the hub read."""

from __future__ import annotations

import re
from collections.abc import Mapping

from insightv import __version__
from insightv.strict_json import Json
from insightv.train.data.card import cell, line
from insightv.train.finetune.settings import Job

_TITLES = {
    "reason": "Reasoning agent, after supervised training",
    "summary": "Summary agent",
    "preference": "Reasoning agent, after preference training",
}


def model_card(job: Job, base: str, facts: Mapping[str, Json]) -> str:
    """The card: a YAML header for machines, then the same for people."""
    import yaml

    shown = {name: facts.get(name) for name in ("steps", "epochs", "rows_trained_on", "rows_left_out", "loss")}
    settings = job.settings.identity()
    header: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "base_model": line(_of_the_hub(base, "{}/{}")),
        "license": "other",
        "tags": ["insightv", "visual-reasoning"],
        "insightv": {"stage": job.stage, "version": __version__, "policy": line(_of_the_hub(job.policy)), **shown},
    }
    text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=2**31)
    rows = [
        ("trained from", _of_the_hub(job.policy)),
        *((name.replace("_", " "), value) for name, value in shown.items()),
    ]
    rows += [(f"setting {name}", value) for name, value in settings.items()]
    table = "".join(f"| {cell(name)} | {cell(value)} |\n" for name, value in rows)
    return (
        f"---\n{text}---\n\n# {job.title or _TITLES[job.stage]}\n\n"
        "A plain directory: transformers loads it by itself. `adapter/`, where there is one, holds the same training "
        "as a PEFT adapter. Rows were never cut. Licences are those of the base model and of the data.\n\n"
        f"| what | value |\n| --- | --- |\n{table}"
    )


def _of_the_hub(model: str, form: str = "{}/{}@{}") -> str:
    """A directory of the hub's cache by owner, name and commit; others as they are."""
    found = re.search(r"[/\\]models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\]([0-9a-f]{40})$", model)
    return form.format(*found.groups()) if found else model
