"""What must hold after every case, whatever was done to the run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from insightv.runs.reader import load_run
from insightv.train.run_datasets import export
from tests.memory import peak_kb
from tests.world import check_balance, command

CANARY = "canary-7d1f00c4-e5"
"""The key that every case signs in with; it may stand nowhere."""
DOCUMENTED = {0, 2, 3, 4, 130, 143}
ENVIRONMENT = {**os.environ, "OPENAI_API_KEY": CANARY}


def run(*args: object, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line to its end, with the canary as its key; what it says and leaves with is checked."""
    done = subprocess.run(
        command(*args), capture_output=True, text=True, timeout=timeout, check=False, **{"env": ENVIRONMENT, **options}
    )
    check_output(done.stdout + done.stderr, done.returncode)
    return done


def measured(*args: object) -> tuple[int, str, float]:
    """As `run`: exit code, what was said on stderr, and the peak of memory in MB.

    The peak is looked at all the time, since it is gone with the child.
    """
    peak = 0
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(command(*args), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=said) as child:
            while child.poll() is None:
                peak = max(peak, peak_kb(child.pid))
                time.sleep(0.01)
        said.seek(0)
        text = said.read()
    check_output(text, child.returncode)
    return child.returncode, text, peak / 1024


def check_output(text: str, code: int) -> None:
    """No traceback, no address of an object, no key; a code that is documented and is not a fault of our own."""
    assert code in DOCUMENTED, f"exit code {code}\n{text}"
    assert "Traceback" not in text, text
    assert not re.search(r"\bat 0x[0-9a-f]{6,}", text), text
    assert CANARY not in text


def check_run(folder: Path, *, done: bool = True) -> dict[str, Any]:
    """A run's status, after a check of all that a run on disk must keep."""
    status = check_balance(folder, done=done)
    with load_run(folder) as reader:
        one = reader._connection.execute
        strange = one(
            "SELECT id, state FROM questions WHERE state NOT IN ('done', 'pending')"
            " UNION SELECT question, status FROM paths WHERE status NOT IN ('ok', 'rejected', 'failed')"
            " UNION SELECT question, path FROM paths WHERE (status = 'ok') = (code IS NOT NULL)"
        ).fetchall()
        counts = one(
            "SELECT count(p.path), max(p.path) FROM questions q LEFT JOIN paths p ON p.question = q.seq"
            " AND p.epoch = q.epoch WHERE q.present = 1 AND q.state = 'done' GROUP BY q.seq"
        ).fetchall()
    assert strange == []
    assert len(set(counts)) <= 1, "questions of one run have different numbers of paths"
    assert all(last == count - 1 for count, last in counts)
    for row in strict_rows(folder):
        assert (row["status"] == "ok") == (row["code"] is None)
        assert (row["band"] is not None) == (row["status"] == "ok")
    check_silence(folder)
    return status


def strict_rows(folder: Path) -> list[dict[str, Any]]:
    """The exported paths, read as JSON without its extensions."""
    out = folder.with_name(folder.name + "-paths.jsonl")
    export(folder, "paths", "jsonl", out)
    lines = out.read_text(encoding="utf-8").splitlines()
    return [json.loads(line, parse_constant=_not_json) for line in lines]


def check_silence(folder: Path) -> None:
    """The key stands in no file of the run."""
    for file in folder.rglob("*"):
        if file.is_file():
            assert CANARY.encode() not in file.read_bytes(), file


def _not_json(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not JSON")
