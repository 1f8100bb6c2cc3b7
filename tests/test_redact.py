"""What is a secret in a text for people, and what only looks like one."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from insightv.backends.openai.classify import of_reply
from insightv.backends.openai.http import Reply
from insightv.cli.terminal import show_log
from insightv.plugin_guard import error_text
from insightv.redact import Redactor, environment_secrets, one_line, without_controls
from insightv.runs.log import run_log


def test_a_path_below_the_working_directory_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.json").touch()
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    monkeypatch.setenv("DB_PWD", "/not/a/place-but-a-password")
    cleaned = Redactor(environment_secrets()).clean(f"{tmp_path}/log.jsonl and /not/a/place-but-a-password", 1000)
    assert cleaned == f"{tmp_path}/log.jsonl and [secret]"


FORGED = "boom\nwarning: forged\r\nerror: too\u2028and\u2029so\x85on\x0b.\x0c"


def test_what_somebody_else_says_is_one_line() -> None:
    assert Redactor().clean(FORGED, 1000) == one_line(FORGED)
    assert len(one_line(FORGED).splitlines()) == 1
    assert one_line("boom\nwarning: forged\u2028") == "boom\\nwarning: forged\\u2028"
    kept = Redactor().clean_bytes("a\nb\u2028c".encode(), 100)
    assert kept == "a\nb\\u2028c"
    assert without_controls("a\nb\u2028c") == kept


def test_a_servers_error_forges_no_line_in_the_log_or_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = json.dumps({"error": {"message": FORGED}}).encode()
    for reply in (Reply(500, {}, body), Reply(400, {}, body), Reply(401, {}, body), Reply(500, {}, FORGED.encode())):
        text = str(getattr(of_reply(reply, 1, Redactor()), "text", ""))
        assert "forged" in text
        assert len(text.splitlines()) == 1
    said = error_text(RuntimeError(FORGED))
    assert len(said.splitlines()) == 1
    with run_log(tmp_path / "log.jsonl"):
        logging.getLogger("insightv.vllm").warning("the engine said: %s", FORGED)
    assert len((tmp_path / "log.jsonl").read_text("utf-8").splitlines()) == 1
    logger = logging.getLogger("insightv.test")
    show_log(logger.name)
    capsys.readouterr()
    logger.warning("the engine said: %s", FORGED)
    logger.handlers.clear()
    assert len(capsys.readouterr().err.splitlines()) == 1
