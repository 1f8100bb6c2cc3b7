"""How near to the model server's limit a build comes: every line of the project's speed aims, as ratios in one run.

    python benchmarks/build_speed.py --out benchmarks/results/build_speed.json
    python benchmarks/build_speed.py --only makespan --repeats 1

A model server in a process of its own (`benchmarks/speed/server.py`) has S slots, prefill and decode rates and a prefix
cache. The same work is done by the product, by a bare aiohttp client whose bodies are spliced from bytes, and by a
simulated client without any time of its own on the same server's code. In each repeat they come one after the other.

Parts: makespan (200 questions), bound (1,000 questions, over total service / slots), instant (replies at once:
requests per second and processor time, the journal on), tokens (uncached prompt tokens with a small cache), memory,
bytes (what is written), kill (what is paid again after kill -9), faults (2 % 429 and 2 % 500).

On a machine that is busy with other things the seconds include waiting for a processor. Compare then the ratios of
processor time, and let the model server work slower than it would (`--pace 0.25`), so that the clients have time to
spare; the schedule, and with it every ratio of makespans, is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.speed.ideal import ideal  # noqa: E402
from benchmarks.speed.report import table  # noqa: E402
from benchmarks.speed.service import Rates  # noqa: E402
from benchmarks.speed.work import questions  # noqa: E402

Result = dict[str, Any]
PICTURES = 1000


@dataclass
class Bench:
    """The server, the folder of the work, and how things are started."""

    folder: Path
    port: int
    options: argparse.Namespace

    @property
    def rates(self) -> Rates:
        """The server's rates at the pace that was asked for."""
        rates, pace = Rates(), self.options.pace
        return Rates(prefill=rates.prefill * pace, decode=rates.decode * pace)

    def reset(self, **settings: Any) -> None:
        """Let the server begin anew."""
        rates = self.rates
        self._request("reset", {"prefill": rates.prefill, "decode": rates.decode, **settings})

    def counts(self) -> Result:
        """What the server has seen since."""
        return self._request("counts", None)

    def bare(self, number: int, **settings: Any) -> Result:
        """The bare client at so many questions: its own figures and the server's."""
        self.reset(**settings)
        own = json.loads(self._started("bare", number).communicate()[0])
        return own | {"server": self.counts()}

    def product(self, number: int, **settings: Any) -> Result:
        """The product at so many questions, in a fresh run."""
        self.reset(**settings)
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        own = json.loads(self._started("product", number).communicate()[0])
        assert (own["done"], own["paths"]["failed"]) == (number, 0), own
        return own | {"server": self.counts()}

    def start_product(self, number: int) -> subprocess.Popen[str]:
        """The product, on the run that is there."""
        return self._started("product", number)

    def _started(self, name: str, number: int) -> subprocess.Popen[str]:
        path = questions(self.folder / "questions", number, PICTURES)
        command = ["--base-url", f"http://127.0.0.1:{self.port}/v1", "--questions", str(path)]
        command += ["--concurrency", str(self.options.concurrency)]
        command += ["--run", str(self.folder / "run")] if name == "product" else []
        return started(f"benchmarks.speed.{name}", *command)

    def _request(self, path: str, body: Result | None) -> Result:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", data) as reply:
            found: Result = json.load(reply)
        return found


def started(module: str, *arguments: str) -> subprocess.Popen[str]:
    """A module of the benchmark as a process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def spread(values: list[float]) -> Result:
    """The median of repeats with the least and the most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values), "repeats": len(values)}


def alternately(bench: Bench, number: int, **settings: Any) -> Iterator[tuple[Result, Result]]:
    """The bare client and the product in turn, as often as asked for."""
    for _ in range(bench.options.repeats):
        yield bench.bare(number, **settings), bench.product(number, **settings)


def makespan(bench: Bench) -> Result:
    """200 questions on 64 slots: makespans over the simulated one, processor time over the bare client's."""
    best = ideal(200, bench.rates)
    ours, bares, processor = [], [], []
    for bare, product in alternately(bench, 200):
        ours.append(product["server"]["makespan_s"] / best.makespan_s)
        bares.append(bare["server"]["makespan_s"] / best.makespan_s)
        processor.append(product["processor_s"] / bare["processor_s"])
    return {
        "simulated_s": best.makespan_s,
        "bound_s": best.bound_s,
        "requests_per_s": product["server"]["requests"] / best.makespan_s,
        "product": spread(ours),
        "bare": spread(bares),
        "processor": spread(processor),
    }


def bound(bench: Bench) -> Result:
    """1,000 questions: makespans over the total service over the slots, and the uncached tokens of the same runs."""
    best = ideal(1000, bench.rates)
    ours, bares, tokens = [], [], []
    for _ in range(bench.options.long_repeats):
        bare, product = bench.bare(1000), bench.product(1000)
        ours.append(product["server"]["makespan_s"] / best.bound_s)
        bares.append(bare["server"]["makespan_s"] / best.bound_s)
        tokens.append(product["server"]["uncached"] / best.uncached)
    return {
        "bound_s": best.bound_s,
        "simulated": best.makespan_s / best.bound_s,
        "product": spread(ours),
        "bare": spread(bares),
        "tokens_500k": spread(tokens),
    }


def instant(bench: Bench) -> Result:
    """Replies at once: requests per second of clock and of processor time, the journal on."""
    rates: dict[str, list[float]] = {"product": [], "bare": [], "product_busy": [], "bare_busy": []}
    processor, milliseconds = [], []
    for bare, product in alternately(bench, bench.options.instant, instant=True):
        for name, found in (("product", product), ("bare", bare)):
            requests = found["server"]["requests"]
            rates[name].append(requests / found["server"]["makespan_s"])
            rates[f"{name}_busy"].append(requests / found["processor_s"])
        processor.append(product["processor_s"] / bare["processor_s"])
        milliseconds.append(1000 * product["processor_s"] / product["server"]["requests"])
    named = {name: spread(values) for name, values in rates.items()}
    return {
        "questions": bench.options.instant,
        "requests_per_s": named,
        "processor": spread(processor),
        "processor_ms": spread(milliseconds),
    }


def tokens(bench: Bench) -> Result:
    """Uncached prompt tokens of 1,000 questions over the leader schedule's, with a cache of 100k tokens."""
    best = ideal(1000, Rates(cache=100_000, prefill=bench.rates.prefill, decode=bench.rates.decode))
    runs = [bench.product(1000, cache=100_000) for _ in range(bench.options.long_repeats)]
    return {"tokens_100k": spread([run["server"]["uncached"] / best.uncached for run in runs])}


def memory(bench: Bench) -> Result:
    """Peak memory of the whole process, in MB."""
    peaks = {number: bench.product(number, instant=True)["peak_mb"] for number in (200, 1000, bench.options.many)}
    return {"peak_mb": peaks, "growth": peaks[bench.options.many] / peaks[1000]}


def written(bench: Bench) -> Result:
    """Bytes written, and the size of the database at the end, over the bytes of the replies' texts; pictures apart."""
    flows, sizes = [], []
    for _ in range(bench.options.repeats):
        run = bench.product(200)
        kept = run["server"]["reply_bytes"]
        flows.append((run["written_bytes"] - run["image_bytes"]) / kept)
        sizes.append(run["database_bytes"] / kept)
    return {"written": spread(flows), "database": spread(sizes)}


def kill(bench: Bench) -> Result:
    """End it with kill -9 at a random moment, then go on until done: what was asked twice, and what of it recorded."""
    rng, cases = random.Random(1), []
    for _ in range(bench.options.repeats):
        bench.reset()
        shutil.rmtree(bench.folder / "run", ignore_errors=True)
        process = bench.start_product(200)
        wanted = rng.randrange(400, 3600)
        while bench.counts()["requests"] < wanted:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        time.sleep(1.5 / bench.options.pace)  # what was asked before is answered, to nobody
        asked = bench.counts()["distinct"]
        with closing(sqlite3.connect(bench.folder / "run" / "run.db")) as database:
            [recorded] = database.execute("SELECT count(*) FROM calls").fetchone()
        done = json.loads(bench.start_product(200).communicate()[0])
        assert (done["done"], done["paths"]["failed"]) == (200, 0), done
        again = bench.counts()["repeats"]
        twice = again - (asked - recorded)
        cases.append({"asked": asked, "recorded": recorded, "paid_again": again, "of_recorded": twice})
    return {"in_flight_at_most": bench.options.concurrency, "cases": cases}


def faults(bench: Bench) -> Result:
    """200 questions with 2 % 429 and 2 % 500, over none."""
    ratios = []
    for _ in range(bench.options.repeats):
        plain, faulty = bench.product(200), bench.product(200, fault_share=0.04)
        ratios.append(faulty["server"]["makespan_s"] / plain["server"]["makespan_s"])
        lost = faulty["paths"]["failed"] + faulty["unjudged"]
    return {"makespan": spread(ratios), "faults": faulty["server"]["faults"], "lost": lost}


PARTS: dict[str, Callable[[Bench], Result]] = {
    "makespan": makespan,
    "bound": bound,
    "instant": instant,
    "tokens": tokens,
    "memory": memory,
    "bytes": written,
    "kill": kill,
    "faults": faults,
}


@contextmanager
def bench_at(options: argparse.Namespace) -> Iterator[Bench]:
    """A bench with its server; both are gone at the end."""
    server = started("benchmarks.speed.server")
    try:
        assert server.stdout is not None
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="speed-") as folder:
            yield Bench(Path(folder), int(server.stdout.readline()), options)
    finally:
        server.kill()
        server.wait()


def main() -> None:
    """Measure what is asked for, print the table, and with `--out` write the figures and beside them the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="these parts alone")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--long-repeats", type=int, default=3, help="repeats of what takes minutes: bound, tokens")
    parser.add_argument("--instant", type=int, default=1000, help="questions of the runs with instant replies")
    parser.add_argument("--many", type=int, default=20_000, help="questions of the larger memory run")
    parser.add_argument("--concurrency", type=int, default=96, help="requests in flight; the server has 64 slots")
    parser.add_argument("--pace", type=float, default=1.0, help="the server's rates, as a factor")
    parser.add_argument("--folder", type=Path, help="where runs are made; a disk, for commits to cost what they cost")
    parser.add_argument("--out", type=Path, help="parts that are not measured now are kept from this file")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65_536), most))
    found: Result = json.loads(options.out.read_text("utf-8")) if options.out and options.out.exists() else {}
    with bench_at(options) as bench:
        for name in options.only:
            print(f"{name} ...", file=sys.stderr, flush=True)
            machine = {"cpus": os.cpu_count(), "load_before": os.getloadavg()}
            settings = {"pace": options.pace, "concurrency": options.concurrency}
            found[name] = PARTS[name](bench) | {"settings": settings, "machine": machine}
            if options.out:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
                options.out.with_suffix(".md").write_text(table(found), "utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
