"""What the server does to a whole build: limits, refusals, garbage, bombs, hangs, outages, budgets.

Each form of each fault is proven at the backend (tests/backends/test_openai_*.py); here it meets a run.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from insightv import Pipeline, StopRun
from insightv.backends.openai import endpoint, retry
from insightv.backends.openai.http import HttpTransport, TransportFailure
from insightv.config.settings import check_settings
from insightv.errors import BudgetSpent, KeyRefused, ModelUnknown, QuotaExhausted
from tests.chaos.after import ENVIRONMENT, check_output, check_run, measured, run
from tests.servers.fake_openai import FakeServer, Settings
from tests.world import build_args, command, path_rows, wait_for, write_questions, write_settings

pytestmark = pytest.mark.chaos
REFUSALS = {"401": KeyRefused, "403": KeyRefused, "402": QuotaExhausted, "quota": QuotaExhausted, "404": ModelUnknown}


def build(
    folder: Path, server: FakeServer | str, questions: Path | None, *, paths: int = 4, **limits: Any
) -> dict[str, Any]:
    """A build in this process: generator and both scorers at the server, or at its URL."""
    at = {"model": "openai/fake", "base_url": server if isinstance(server, str) else server.base_url}
    table = {
        "seed": 3,
        "generator": {**at, "paths": paths},
        "scorers": [{"use": "answer", **at}, {"use": "path", **at}],
        "run": {"grace_s": 3, **limits},
    }
    pipeline = Pipeline(run=folder, settings=check_settings(table))
    return asyncio.run(pipeline.abuild(questions, datasets=False)).as_json()


@pytest.mark.parametrize(("fault", "wait_s"), [("429=3", 3.0), ("429={date+3}", 2.0), ("503:retry-after-ms=2500", 2.5)])
def test_64_workers_wait_together_for_the_moment_that_one_of_them_is_told(
    fault: str, wait_s: float, tmp_path: Path
) -> None:
    """No request from any worker before the deadline (50 ms tolerance); each refused request comes again once."""
    with FakeServer() as server:
        questions = write_questions(tmp_path, 80, steps=2)
        build(tmp_path / "whole", server, questions, paths=1)
        undisturbed = len(server.log())
        server.model.forget()
        server.change(script=("ok",) * 60 + (fault,) * 64, latency_s=0.2)
        status = build(tmp_path / "run", server, questions, paths=1, concurrency=64)
        log = server.log()
    refused = [entry for entry in log if entry["fault"] == fault]
    assert status["paths"]["failed"] == 0
    told = min(entry["done"] for entry in refused)
    # Within the first half second are those that were sent before the refusal had come.
    early = [entry for entry in log if told + 0.5 < entry["time"] < told + wait_s - 0.05]
    assert not early, f"{len(early)} requests before the moment"
    assert len(refused) <= 64
    assert len(log) == undisturbed + len(refused) <= 1.1 * undisturbed + 64
    check_run(tmp_path / "run")


def test_a_long_limit_parks_the_run_which_says_so_and_can_be_left_at_once(tmp_path: Path) -> None:
    with FakeServer(Settings(script=("ok",) * 20 + ("429=3600",) * 64)) as server:
        questions = write_questions(tmp_path, 30, steps=2)
        settings = write_settings(tmp_path, server.base_url)
        folder = tmp_path / "run"
        args = command(*build_args(questions, settings, folder), "--set", "run.grace_s=600")
        parked = subprocess.Popen(args, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ENVIRONMENT)
        assert parked.stderr is not None
        for line in parked.stderr:
            if "asks to be left alone for 3600 s" in line:
                break
        wait_for(lambda: all(entry["done"] for entry in server.log()))
        parked.terminate()
        errors = parked.communicate(timeout=100)[1]  # nothing is in flight, so no grace time is needed
        check_output(errors, parked.returncode)
        assert parked.returncode == 143
        assert "resume with" in errors
        assert len(server.log()) <= 20 + 64, "a worker has asked although the server is parked"
        assert check_run(folder, done=False)["requests"] == len(server.log()), "a refused request was not counted"
        server.change(script=())
        assert run(*build_args(questions, settings, folder)).returncode == 0
    assert check_run(folder)["paths"]["failed"] == 0


@pytest.mark.timeout(300)
def test_a_third_of_2000_calls_disturbed_and_every_row_is_as_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten kinds of fault, 30 % in all: 100 % complete with <= 1.6 times the requests."""
    monkeypatch.setattr(retry, "FIRST_BACKOFF_S", 0.05)
    kinds = ["500", "502", "503", "reset", "cut", "html", "bad_utf8", "empty_choices", "null_content", "error200"]
    with FakeServer(Settings(wrong=0.3)) as server:
        questions = write_questions(tmp_path, 210, steps=2)
        build(tmp_path / "whole", server, questions)
        undisturbed = len(server.log())
        server.model.forget()
        server.change(faults=dict.fromkeys(kinds, 0.03))
        status = build(tmp_path / "run", server, questions)
        log = server.log()
    assert undisturbed >= 2000
    assert len(log) <= 1.6 * undisturbed
    assert status["requests"] == len(log)
    assert status["paths"]["failed"] == 0
    assert status["unjudged"] == 0
    assert {entry["fault"] for entry in log} == {None, *kinds}
    assert sum(status["setbacks"].values()) == sum(entry["fault"] is not None for entry in log)
    check_run(tmp_path / "run")
    assert path_rows(tmp_path / "run") == path_rows(tmp_path / "whole")


def test_an_outage_in_mid_run_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 s in place of a minute: the gaps between probes are a tenth of the real ones, all else is as it is."""
    monkeypatch.setattr(endpoint, "PROBE_GAPS_S", tuple(gap / 10 for gap in endpoint.PROBE_GAPS_S))
    times: dict[str, float] = {}

    def outage() -> None:
        wait_for(lambda: len(server.log()) > 60, 60)
        server.down()
        time.sleep(4)
        times["asked"] = len(server.log())
        server.up()
        times["up"] = time.monotonic()

    with FakeServer(Settings(latency_s=0.02)) as server:
        questions = write_questions(tmp_path, 30, steps=2)
        thread = threading.Thread(target=outage)
        thread.start()
        status = build(tmp_path / "run", server, questions, concurrency=16, deadline_s=3)
        thread.join()
    assert status["paths"]["failed"] == status["unjudged"] == 0
    assert status["questions"]["done"] == 30
    check_run(tmp_path / "run")


def test_hung_and_dripping_replies_cost_their_paths_by_the_deadline_and_can_be_tried_again(tmp_path: Path) -> None:
    with FakeServer(Settings(faults={"hang": 0.04, "drip=0.2": 0.04})) as server:
        questions = write_questions(tmp_path, 12, steps=2)
        began = time.monotonic()
        status = build(tmp_path / "run", server, questions, deadline_s=1)
        took = time.monotonic() - began
        disturbed = sum(entry["fault"] is not None for entry in server.log())
        assert disturbed >= 3
        assert status["faults"] == {"timeout": disturbed}
        assert 0 < status["paths"]["failed"] == status["paths"]["by_code"]["timeout"]
        assert took < 60
        check_run(tmp_path / "run")
        server.change(faults={})
        pipeline = Pipeline.from_config(run=tmp_path / "run")
        again = asyncio.run(pipeline.abuild(datasets=False, retry_failed=True))
        sent = [(entry["sha"], entry["seed"]) for entry in server.log() if entry["fault"] is None]
    assert again.paths.ok == 48
    assert len(sent) == len(set(sent)), "what was answered was asked again"


def test_refused_with_403_in_a_row_amid_answers_is_the_keys_fault_and_can_be_tried_again(tmp_path: Path) -> None:
    """One 403 amid answered calls is that call's own; the sixth in a row stops the run, with few more in flight."""
    with FakeServer(Settings(script=("ok",) * 50 + ("403",) * 1000, latency_s=0.02)) as server:
        questions = write_questions(tmp_path, 20, steps=2)
        with pytest.raises(REFUSALS["403"]):
            build(tmp_path / "run", server, questions, concurrency=6)
        assert 6 <= sum(entry["fault"] == "403" for entry in server.log()) <= 12
        assert check_run(tmp_path / "run", done=False)["requests"] == len(server.log())
        server.change(script=())
        pipeline = Pipeline.from_config(run=tmp_path / "run")
        assert asyncio.run(pipeline.abuild(datasets=False, retry_failed=True)).paths.ok == 80


@pytest.mark.parametrize("fault", [fault for fault in REFUSALS if fault != "403"])
def test_a_refusal_in_mid_run_stops_it_and_it_goes_on_where_it_was(fault: str, tmp_path: Path) -> None:
    """A key that is withdrawn, a quota that ends, a model that is taken away: at most `concurrency` requests more."""
    with FakeServer(Settings(script=("ok",) * 50 + (fault,) * 1000, latency_s=0.02)) as server:
        questions = write_questions(tmp_path, 20, steps=2)
        with pytest.raises(REFUSALS[fault]):
            build(tmp_path / "run", server, questions, concurrency=6)
        refused = [entry for entry in server.log() if entry["fault"] == fault]
        assert 1 <= len(refused) <= 6
        status = check_run(tmp_path / "run", done=False)
        assert status["requests"] == len(server.log())
        assert status["paths"]["failed"] == 0, "a path was said to have failed, which was only stopped"
        server.change(script=())
        assert build(tmp_path / "run", server, None, concurrency=6)["paths"]["ok"] == 80
        sent = [(entry["sha"], entry["seed"]) for entry in server.log() if entry["fault"] is None]
    assert len(sent) == len(set(sent)), "what was answered was asked again"
    check_run(tmp_path / "run")


@pytest.mark.timeout(300)
def test_bombs_among_the_replies_cost_no_memory(tmp_path: Path) -> None:
    """Peak memory of the process within 150 MB of an undisturbed one's; each bombed call is answered at a later try."""
    bombs = ("gzip_bomb=1000", "huge=500", "long_line", "nested", "gzip_cut", "array", "surrogate", "nan", "not_json")

    def peak_mb(folder: Path) -> float:
        code, _, peak = measured(*build_args(questions, settings, folder))
        assert code == 0
        return peak

    with FakeServer() as server:
        questions = write_questions(tmp_path, 6, steps=2)
        settings = write_settings(tmp_path, server.base_url, extra="[run]\nconcurrency = 4\n")
        quiet = peak_mb(tmp_path / "whole")
        server.model.forget()
        server.change(script=tuple(kind for bomb in bombs for kind in (bomb, "ok", "ok")))
        loud = peak_mb(tmp_path / "run")
        log = server.log()
    assert {entry["fault"] for entry in log} - {None} == set(bombs)
    assert loud - quiet < 150, f"{quiet:.0f} MB -> {loud:.0f} MB"
    assert check_run(tmp_path / "run")["paths"]["failed"] == 0
    assert path_rows(tmp_path / "run") == path_rows(tmp_path / "whole")


@pytest.mark.parametrize("limit", ["requests", "tokens", "usd"])
def test_a_budget_holds_across_five_resumes_failed_tries_counted(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overshoot <= concurrency x the dearest call, at every stop; the sums are those of the server's log."""
    monkeypatch.setattr(retry, "FIRST_BACKOFF_S", 0.02)
    concurrency = 4
    price = {"prompt": 1.0, "completion": 10.0}
    with FakeServer(Settings(faults={"null_content": 0.1, "500": 0.1})) as server:
        questions = write_questions(tmp_path, 40, steps=2)

        def spent(status: dict[str, Any]) -> float:
            tokens = status["tokens"]["prompt"] + status["tokens"]["completion"]
            return float({"requests": status["requests"], "tokens": tokens, "usd": status["usd"]}[limit])

        def go(**budget: float) -> dict[str, Any]:
            run_limits = {"concurrency": concurrency, "prices": {"openai/fake": price}, **budget}
            return build(tmp_path / "run", server, questions, paths=2, **run_limits)

        # A call may need several tries, each of which is paid for: the dearest is bounded by what the server saw.
        step = {"requests": 45, "tokens": 30_000, "usd": 0.035}[limit]
        dearest = {"requests": 9, "tokens": 9 * 2500, "usd": 9 * 2500 * 10 / 1e6}[limit]
        stops = []
        for number in range(1, 6):
            with pytest.raises(BudgetSpent, match=f"max_{limit}"):
                go(**{f"max_{limit}": number * step})
            status = check_run(tmp_path / "run", done=False)
            stops.append(spent(status))
            assert status["requests"] == len(server.log()), "a request is not counted"
            assert number * step <= stops[-1] <= number * step + concurrency * dearest
        assert all(after > before for before, after in pairwise(stops))
        assert go()["questions"]["done"] == 40
        assert check_run(tmp_path / "run")["requests"] == len(server.log())


def test_a_stop_of_the_budget_is_told_with_its_cure(tmp_path: Path) -> None:
    with FakeServer() as server:
        questions, settings = write_questions(tmp_path, 5), write_settings(tmp_path, server.base_url)
        args = build_args(questions, settings, tmp_path / "run")
        nothing = run(*args, "--set", "run.max_usd=1.0")
        assert nothing.returncode == 2
        assert "run.prices" in nothing.stderr
        assert server.log() == []
        assert run(*args, "--set", "run.max_requests=3", "--set", "run.concurrency=2").returncode == 3
        assert len(server.log()) <= 4
    with pytest.raises(StopRun):
        raise BudgetSpent("the stop that a caller catches")


HEADS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
    b"HTTP/1.1 429 Slow\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n{}",
)
ODD = (
    b"",
    b"\r\n\r\n",
    b"\x00" * 5000,
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"HTTP/1.1 200\r\n\r\n",
    b"HTTP/9.9 200 OK\r\n\r\n{}",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 99999 OK\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
    b"HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 304 Same\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=\xff\xfe\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 50_000 + b"\r\n{}",
    b"HTTP/1.1 200 OK\r\nSet-Cookie: \xff=\xfe; Max-Age=nan\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 307 Go\r\nLocation: \x00\xff://\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nBad Header\r\n\r\n{}",
)


def mutated(count: int) -> list[bytes]:
    chance = random.Random(11)
    found = []
    for number in range(count):
        data = bytearray(HEADS[number % len(HEADS)])
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(data) or 1)
            match chance.randrange(4):
                case 0:
                    data[place : place + 1] = chance.randbytes(1)
                case 1:
                    del data[place : place + chance.randint(1, 8)]
                case 2:
                    data[place:place] = chance.randbytes(chance.randint(1, 8))
                case _:
                    data = data[: max(1, place)]
        found.append(bytes(data))
    return found


def test_whatever_comes_over_the_wire_is_a_reply_or_a_failure_of_the_transport() -> None:
    """Odd replies and 300 damaged ones: no exception of a library's own gets through, nothing waits for ever."""

    async def everything(replies: list[bytes]) -> list[tuple[bytes, BaseException]]:
        left = iter(replies)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(next(left))
                await writer.drain()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions"
        transport = HttpTransport(max_reply_bytes=1_000_000)
        escaped: list[tuple[bytes, BaseException]] = []
        failed: list[bytes] = []
        for reply in replies:
            try:
                async with asyncio.timeout(20):
                    await transport.post(url, {}, [b"{}"])
            except TransportFailure:
                failed.append(reply)
            # Whatever else gets through is what this test looks for.
            except Exception as error:
                escaped.append((reply[:80], error))
        await transport.aclose()
        server.close()
        assert len(failed) > 100
        return escaped

    escaped = asyncio.run(everything([*ODD, *mutated(300)]))
    assert not escaped, escaped[:5]
