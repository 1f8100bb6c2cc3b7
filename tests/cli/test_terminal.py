"""What a model or a file says cannot command the terminal of whoever looks."""

from __future__ import annotations

import pytest

from insightv.cli.terminal import out, say
from tests.world import insightv

HOSTILE = "\x1b[2J\x1b[31mred\x1b[0m \x9b5n\x07\x08\r\tgreen\n"


def test_escape_sequences_and_control_codes_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out(HOSTILE)
    say(HOSTILE)
    shown = capsys.readouterr()
    assert shown.out == "red 5n\tgreen\n\n"
    assert not set(shown.err) & set("\x1b\x9b\x07\x08\r")


def test_a_place_in_a_file_is_told_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (100, 1234):
        say(f"questions.jsonl:{line}: q{line}: no answer [bold]")
        assert capsys.readouterr().err == f"questions.jsonl:{line}: q{line}: no answer [bold]\n"


def test_nor_do_those_of_an_error() -> None:
    done = insightv("export", "--what", HOSTILE, "--out", "x", "--run", f"no {HOSTILE}".strip())
    assert done.returncode == 2
    assert not set(done.stdout + done.stderr) & set("\x1b\x9b\x07\x08\r")
