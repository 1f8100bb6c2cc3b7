"""What is a secret in a text for people, and what only looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from insightv.redact import Redactor, environment_secrets


def test_a_path_below_the_working_directory_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.json").touch()
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    monkeypatch.setenv("DB_PWD", "/not/a/place-but-a-password")
    cleaned = Redactor(environment_secrets()).clean(f"{tmp_path}/log.jsonl and /not/a/place-but-a-password", 1000)
    assert cleaned == f"{tmp_path}/log.jsonl and [secret]"
