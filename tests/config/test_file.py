"""A run's `config.toml`, and the file that it was made from."""

from __future__ import annotations

import subprocess
from pathlib import Path

from insightv.config.file import edited_origin
from tests.servers.fake_openai import FakeServer
from tests.world import insightv, write_questions, write_settings


def test_a_file_that_was_edited_since_is_not_passed_over(tmp_path: Path) -> None:
    def build(*more: str) -> subprocess.CompletedProcess[str]:
        return insightv("build", "questions.jsonl", "--run", "run", "--no-datasets", *more, cwd=tmp_path)

    kept = tmp_path / "run" / "config.toml"
    with FakeServer() as server:
        write_questions(tmp_path, 2)
        settings = write_settings(tmp_path, server.base_url)
        assert build("--set", "generator.max_steps=7").returncode == 0
        assert build().returncode == 0, "what --set said is kept"
        assert edited_origin(kept) is None
        text = settings.read_text()
        settings.write_text(text.replace("seed = 3", "seed = 4"))
        refused = build()
        assert refused.returncode == 2
        assert "insightv.toml has changed since the run was made with it" in refused.stderr
        assert "seed: 3 -> 4" in refused.stderr
        assert build("--config", str(kept)).returncode == 0
        settings.write_text(text + "[run]\nmax_requests = 1000\n")
        assert build("--set", "generator.max_steps=7").returncode == 0
        assert "max_requests = 1000" in kept.read_text()
        assert edited_origin(kept) is None
        settings.unlink()
        assert build().returncode == 0
