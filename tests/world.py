"""What tests of whole runs share: a questions file with pictures, settings for a fake server, and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from insightv.runs.reader import load_run


def write_questions(folder: Path, count: int, steps: int | None = None) -> Path:
    """`count` questions of one picture each; the fake server reads the truth out of the text."""
    from PIL import Image

    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        Image.new("RGB", (40, 30), (i * 7 % 256, i // 256, 90)).save(folder / "images" / f"{i}.png")
        text = f"What is {i} + {i + 1}? [truth={2 * i + 1}]" + (f" [steps={steps}]" if steps else "")
        rows.append({"id": f"q{i}", "question": text, "images": [f"images/{i}.png"], "answer": str(2 * i + 1)})
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_settings(folder: Path, base_url: str, *, path_scorer: bool = True, paths: int = 4, extra: str = "") -> Path:
    """An insightv.toml for the fake server at `base_url`; `extra` is more TOML."""
    model = f'model = "openai/fake"\nbase_url = "{base_url}"\n'
    text = f'seed = 3\n[generator]\n{model}paths = {paths}\n[[scorers]]\nuse = "answer"\n{model}'
    text += f'[[scorers]]\nuse = "path"\n{model}' if path_scorer else ""
    path = folder / "insightv.toml"
    path.write_text(text + extra, encoding="utf-8")
    return path


def command(*args: object) -> list[str]:
    """The command line as a child process runs it."""
    return [sys.executable, "-m", "insightv.cli", *map(str, args)]


def insightv(*args: object, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=timeout, check=False, **options)


def build_args(questions: Path, settings: Path, run: Path) -> list[object]:
    """The arguments of a build without datasets."""
    return ["build", questions, "--config", settings, "--run", run, "--no-datasets", "--json"]


def path_rows(run: Path) -> list[dict[str, Any]]:
    """Every path of a run as exported, usage left out: whether a prefix was cached is chance."""
    from insightv.train.run_datasets import export

    out = run.with_suffix(".jsonl")
    export(run, "paths", "jsonl", out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        del row["usage"]
    return sorted(rows, key=lambda row: (row["question_id"], row["path"]))


def check_balance(run: Path, *, done: bool = True) -> dict[str, Any]:
    """A run's status, after a check that its sums balance and its file is whole."""
    with load_run(run) as reader:
        status = reader.status().as_json()
        (whole,) = reader._connection.execute("PRAGMA integrity_check").fetchone()
    assert whole == "ok"
    paths = status["paths"]
    assert paths["total"] == paths["ok"] + paths["rejected"] + paths["failed"]
    assert sum(status["bands"].values()) == paths["ok"]
    assert sum(paths["by_code"].values()) == paths["rejected"] + paths["failed"]
    if done:
        assert status["questions"]["done"] == status["questions"]["total"]
    return status


def wait_for(condition: Any, seconds: float = 30) -> None:
    """Wait until `condition()` is true."""
    import time

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
