"""The soak of the server, for seconds instead of an hour: nothing is lost, and nothing grows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_under_a_steady_load_nothing_is_lost_and_nothing_grows(tmp_path: Path) -> None:
    seconds, out = 20, tmp_path / "soak.json"
    arguments = ["--seconds", str(seconds), "--rate", "50", "--interval", "1", "--burst", "40", "--out", str(out)]
    script = str(ROOT / "benchmarks" / "serve_soak.py")
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text("utf-8"))
    assert (result["drain"]["lost"], result["drain"]["exit_code"]) == (0, 143)
    assert result["drain"]["in_flight_at_sigterm"] > 0
    first, last = result["intervals"][seconds // 4], result["intervals"][-1]
    assert last["memory_mb"] - first["memory_mb"] < 20
    assert last["descriptors"] <= first["descriptors"] + 40
    assert out.with_suffix(".svg").read_text("utf-8").count("<polyline") == 5
