"""Child processes: they end with their parent however it dies; one that hangs, fills memory or dies ends alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from insightv.child_processes import ChildEnded, KeptProgram, LineChild, end_of, how_ended, receive, send
from tests.world import wait_for

ROOT = Path(__file__).parents[1]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is of Linux")
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
STUCK = 'import re\nre.match("(a+)+$", "a" * 60 + "b")'  # for ever, in C code that holds the interpreter
SERVES = f"""
import os
import subprocess
from insightv.child_processes import answer_parent


def answer(head, data):
    if head == "stuck":
        exec({STUCK!r})
    if head == "memory":
        bytearray(2**31)
    if head == "fork":
        return subprocess.Popen(["sleep", "100"]).pid, data
    if head == "odd":
        os.write(int(__import__("sys").argv[1]), b"\\0\\0\\0\\1?\\0\\0\\0\\0")
    print("a library prints what it likes")
    return head, data


answer_parent(answer, memory_bytes=2**30)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that serves, found as any module of this process."""
    (tmp_path / "serving_child.py").write_text(SERVES)
    monkeypatch.syspath_prepend(tmp_path)
    return "serving_child"


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_messages_of_any_size_come_back_as_they_were(module: str) -> None:
    child = LineChild(module)
    for head, data in ({"a": [1, None, "\ud800 \u00e9"]}, b""), ("x" * 300_000, os.urandom(5_000_000)), (7, b"\n"):
        assert child.ask(head, data, limit_s=60) == (head, data)
    child.end()
    assert child.code == -signal.SIGKILL


def test_a_child_that_hangs_is_ended_in_time(module: str) -> None:
    child = LineChild(module)
    assert child.ask(1, limit_s=60) == (1, b"")
    began = time.monotonic()
    with pytest.raises(ChildEnded, match=r"did not reply within 0\.3 s"):
        child.ask("stuck", limit_s=0.3)
    assert time.monotonic() - began < 20
    assert not alive(child.pid)


@pytest.mark.parametrize(("head", "says"), [("memory", "ended with code 1"), ("odd", "was killed by SIGKILL")])
def test_a_child_without_a_reply_ends_alone(module: str, head: str, says: str) -> None:
    child = LineChild(module)
    with pytest.raises(ChildEnded, match=says):
        child.ask(head, limit_s=60)
    with pytest.raises(ChildEnded, match=says):
        child.ask(1, limit_s=60)


def test_what_a_child_has_started_ends_with_it(module: str) -> None:
    child = LineChild(module)
    grandchild, _ = child.ask("fork", limit_s=60)
    assert os.getpgid(grandchild) == child.pid != os.getpgid(0), "Ctrl-C at the terminal does not reach it"
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(60)
    wait_for(lambda: not alive(grandchild), 20)
    child.end()


PARENT = """
import sys
from insightv.child_processes import LineChild, send
child = LineChild(sys.argv[1])
child.ask(1, limit_s=60)
send(child.line, "stuck")
print(child.pid, flush=True)
sys.stdin.read()
"""


@LINUX
def test_a_child_that_c_code_holds_ends_with_its_parent(module: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", PARENT, module], env=environment, **PIPES, text=True) as parent:  # type: ignore[call-overload]
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    wait_for(lambda: not alive(pid), 20)


def test_a_child_whose_parent_is_gone_before_it_begins_does_nothing(module: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    held, line = socket.socketpair()  # the line itself has no end here: only the parent's number tells
    with held, line:
        command = [sys.executable, "-P", "-m", module, str(line.fileno()), "1"]
        done = subprocess.run(command, env=environment, pass_fds=(line.fileno(),), timeout=60, check=False)
    assert done.returncode == 0


def test_a_line_ends_for_both(module: str) -> None:
    child = LineChild(module)
    send(child.line, 1)
    assert receive(child.line) == (1, b"")
    child.line.close()
    assert child.wait(60)
    assert child.code == 0


LAUNCHER = """
import subprocess, sys
code = "import os, time; from insightv.child_processes import end_with_leash; end_with_leash(); {then}"
subprocess.run([sys.executable, "-c", code], start_new_session={apart})
"""
SAY = "print(os.getpid(), flush=True); time.sleep(100)"


@pytest.mark.parametrize("apart", [True, False])
def test_a_kept_program_ends_with_all_that_hangs_on_its_leash(tmp_path: Path, apart: bool) -> None:
    said = tmp_path / "log"
    with said.open("wb") as log:
        command = [sys.executable, "-c", LAUNCHER.format(then=SAY, apart=apart)]
        program = KeptProgram(command, os.environ | {"PYTHONPATH": str(ROOT)}, log)
        wait_for(lambda: said.read_bytes().endswith(b"\n"), 60)
        pid = int(said.read_bytes())
        assert not program.wait(0)
        assert program.code is None
        assert alive(pid)
        program.end()
    wait_for(lambda: not alive(pid), 20)
    assert program.wait(0)


KEEPS = """
import os, sys
from insightv.child_processes import KeptProgram
code = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
program = KeptProgram([sys.executable, "-c", code], os.environ, open(sys.argv[1], "wb"))
print(program.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("keeper_too", [False, pytest.param(True, marks=LINUX)])
def test_a_kept_program_ends_with_its_parent(tmp_path: Path, keeper_too: bool) -> None:
    said = tmp_path / "log"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", KEEPS, said], env=environment, **PIPES, text=True) as parent:  # type: ignore[call-overload]
        keeper = int(parent.stdout.readline())
        wait_for(lambda: said.exists() and said.read_bytes().endswith(b"\n"), 60)
        if keeper_too:  # before it can do anything about it
            os.kill(keeper, signal.SIGSTOP)
        parent.kill()
    if keeper_too:
        os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: not alive(int(said.read_bytes())), 20)


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("print('said'); raise SystemExit(3)", 3),
        ("print('said', flush=True); import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("print('said', flush=True); import os, signal, time; os.kill(os.getppid(), 9); time.sleep(100)", -9),
    ],
)
def test_how_a_kept_program_ended_is_known(tmp_path: Path, code: str, ended: int) -> None:
    with (tmp_path / "log").open("wb") as log:
        program = KeptProgram([sys.executable, "-c", code], os.environ, log)
        assert program.wait(60)
    assert program.code == ended
    assert end_of(tmp_path / "log", 100) == "said\n"


def test_how_it_ended_is_said_in_the_same_words() -> None:
    assert how_ended(7) == "ended with code 7"
    assert how_ended(-11) == "was killed by SIGSEGV"
    assert how_ended(-9) == "was killed by SIGKILL; out of memory is the likely cause"
    assert how_ended(-200) == "was killed by signal 200"


def test_the_end_of_a_log_is_read_from_a_place_on(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"before\nafter \xff end\n")
    assert end_of(tmp_path / "log", 1000, 7) == "after \ufffd end\n"
    assert end_of(tmp_path / "log", 4, 7) == "end\n"
