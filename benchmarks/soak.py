"""A run of very many questions, watched: memory over time, commits, resume, sizes, and the commands that read it.

    python benchmarks/soak.py --questions 100000 --folder build/soak --out benchmarks/results/soak.json

The command line builds a run of 1,000 questions, then one of `--questions`, against a fake model server that answers
at once (`instant_server.py`) in a process of its own: real HTTP, real pictures, a real `run.db`. The large run is
killed (SIGKILL) when half of it is done, and resumed. Then everything is done with it that a run is read for. What is
finished is kept in the folder, so the same command goes on where it was stopped. Beside the JSON it writes the curve of
the memory as a picture.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timed_cli import quantile_ms

ROOT = Path(__file__).parents[1]
PICTURES = 300
PATHS = 4
REQUESTS = 10.4
"""Of a question, about: what tells when half of the run is done."""
STOP = threading.Event()
"""Set when this program is told to stop: what is under way is killed, and can be gone on with."""
ENDED = (0, 4)
"""Exit codes of a build that is done; with 4 some paths failed, as they must here."""
Figures = dict[str, Any]


def write_questions(folder: Path, count: int) -> Path:
    """Questions whose answer the fake server finds in their text, over a few hundred different pictures."""
    path = folder / "questions.jsonl"
    if path.is_file():
        return path
    (folder / "charts").mkdir(parents=True, exist_ok=True)
    for number in range(PICTURES):
        draw_chart(folder / "charts" / f"{number}.png", number)
    with (folder / "questions.new").open("w", encoding="utf-8") as file:
        for i in range(count):
            text = f"Which value does bar {i % 7 + 1} of chart {i} reach, in thousands? [truth={i + 200}]"
            row = {"id": f"q{i}", "question": text, "images": [f"charts/{i % PICTURES}.png"], "answer": str(i + 200)}
            file.write(json.dumps(row) + "\n")
    return (folder / "questions.new").replace(path)


def draw_chart(path: Path, number: int) -> None:
    """A chart of seven bars on paper that is not quite white, so that it takes some kB."""
    import random

    from PIL import Image, ImageDraw

    draw = random.Random(number)
    image = Image.frombytes("L", (160, 120), bytes(draw.choices(range(252, 256), k=160 * 120))).convert("RGB")
    pen = ImageDraw.Draw(image)
    for bar in range(7):
        colour = tuple(draw.randrange(256) for _ in range(3))
        pen.rectangle((10 + 20 * bar, 110 - draw.randrange(10, 100), 24 + 20 * bar, 110), fill=colour)
    image.save(path)


def write_settings(folder: Path, port: int) -> Path:
    """The settings of both runs; the address of the server may change."""
    model = f'model = "openai/instant"\nbase_url = "http://127.0.0.1:{port}/v1"\n'
    text = f'seed = 3\n[generator]\n{model}paths = {PATHS}\n[[scorers]]\nuse = "answer"\n{model}'
    text += f'[[scorers]]\nuse = "path"\n{model}[run]\nconcurrency = 64\n'
    path = folder / "insightv.toml"
    path.write_text(text, encoding="utf-8")
    return path


class Instant:
    """The fake server; one for each process that is watched, so that its counts begin with it."""

    def __enter__(self) -> Instant:
        command = [sys.executable, str(ROOT / "benchmarks" / "instant_server.py")]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def asked(self) -> tuple[int, float | None]:
        """How many requests were answered, and when the first one came."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/asked", timeout=30) as reply:
            form = json.load(reply)
        return form["asked"], form["first"]


def memory_mb(pid: int, field_name: str = "VmRSS") -> float:
    """Resident memory of a process, or its peak (VmHWM); 0 when it is gone."""
    try:
        found = re.search(rf"{field_name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("utf-8"))
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return round(int(found[1]) / 1024, 2) if found else 0.0


def processor_s() -> float:
    """Processor seconds of all children that have ended; on a busy machine they say more than those of a clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass
class Watched:
    """A command of insightv as a process, its memory sampled until it ends.

    `samples` are (seconds, MB, requests answered, phase); phases are read from what the command says.
    """

    arguments: list[str]
    times: Path
    server: Instant | None = None
    every_s: float = 0.25
    kill_at: float | None = None
    samples: list[tuple[float, float, int, str]] = field(default_factory=list)
    phase: str = "starting"
    said: list[str] = field(default_factory=list)
    peak_mb: float = 0.0
    children_mb: float = 0.0

    def run(self) -> Figures:
        """Run it to its end, or kill it when the server has answered `kill_at` requests."""
        command = [sys.executable, str(ROOT / "benchmarks" / "timed_cli.py"), str(self.times), *self.arguments]
        self.times.unlink(missing_ok=True)
        began, started, before = time.monotonic(), time.time(), processor_s()
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, env={**os.environ, "OPENAI_API_KEY": "none"}, **pipes) as process:  # type: ignore[call-overload]
            reader = threading.Thread(target=self._listen, args=(process,))
            reader.start()
            try:
                while process.poll() is None:
                    self._sample(process.pid, time.monotonic() - began)
                    if STOP.is_set() or (self.kill_at and self.samples[-1][2] >= self.kill_at):
                        process.kill()
                    time.sleep(self.every_s)
            finally:
                process.kill()
                reader.join()
        figures = self._figures(process.returncode, time.monotonic() - began, started)
        return figures | {"processor_s": round(processor_s() - before, 2)}

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.said = [*self.said[-50:], line]
            for phase, word in (
                ("checking", "checking "),
                ("building", "building: "),
                ("datasets", "writing datasets"),
            ):
                if line.startswith(word):
                    self.phase = phase

    def _sample(self, pid: int, at: float) -> None:
        asked = self.server.asked()[0] if self.server else 0
        self.samples.append((round(at, 2), memory_mb(pid), asked, self.phase))
        self.peak_mb = max(self.peak_mb, memory_mb(pid, "VmHWM"))
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
        except (FileNotFoundError, ProcessLookupError):
            return
        self.children_mb = max(self.children_mb, sum(memory_mb(int(child)) for child in children))

    def _figures(self, code: int, seconds: float, started: float) -> Figures:
        if code not in (*ENDED, -signal.SIGKILL) and not STOP.is_set():
            raise SystemExit(f"{' '.join(self.arguments)} ended with {code}:\n{''.join(self.said)}")
        asked, first = self.server.asked() if self.server else (0, None)
        figures: Figures = {"seconds": round(seconds, 2), "peak_mb": self.peak_mb, "code": code}
        if self.children_mb:
            figures["children_mb"] = round(self.children_mb, 1)
        if self.server:
            figures |= {"requests": asked, "first_request_s": round(first - started, 2) if first else None}
        if self.times.is_file():
            figures |= json.loads(self.times.read_text())
        return figures


def leave_if_told() -> None:
    """End this program where it was told to stop."""
    if STOP.is_set():
        raise SystemExit("stopped; the same command goes on")


class Soak:
    """The work, kept in a folder as far as it is done."""

    def __init__(self, folder: Path, questions: int, reference: int) -> None:
        self.folder, self.questions, self.reference = folder.resolve(), questions, reference
        self.large = self.folder / f"run-{questions}"
        self._kept = self.folder / f"figures-{questions}.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.figures: Figures = json.loads(self._kept.read_text()) if self._kept.is_file() else {}

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """Do a piece of work, unless it is done already."""
        if name not in self.figures:
            done = work()
            leave_if_told()
            self.keep(name, done)
            shown = {key: value for key, value in self.figures[name].items() if not isinstance(value, list)}
            print(f"{name}: {json.dumps(shown)}", file=sys.stderr, flush=True)
        return self.figures[name]

    def keep(self, name: str, value: Any) -> None:
        """Keep figures under a name."""
        self.figures[name] = value
        fresh = self._kept.with_suffix(".new")
        fresh.write_text(json.dumps(self.figures))
        fresh.replace(self._kept)

    def build(self, run: Path, questions: Path, every_s: float, kill_at: float | None = None) -> Figures:
        """One process that builds, from where the run stands."""
        with Instant() as server:
            settings = write_settings(questions.parent, server.port)
            arguments = ["build", str(questions), "--config", str(settings), "--run", str(run), "--json"]
            watched = Watched(arguments, self.folder / "times.json", server, every_s, kill_at)
            return watched.run() | {"samples": watched.samples}

    def part(self, questions: Path) -> None:
        """The large run, one process further: the first is killed half way, the others go on to the end."""
        every_s = max(0.25, self.questions / 50_000)
        half = None if self.parts else self.questions * REQUESTS / 2
        self.keep("parts", [*self.parts, self.build(self.large, questions, every_s, half)])

    @property
    def parts(self) -> list[Figures]:
        """The processes that have built the large run so far."""
        return self.figures.get("parts", [])

    def builds(self) -> None:
        """The small run, then the large one in parts, with a SIGKILL after the first."""
        small = write_questions(self.folder / "questions-small", self.reference)
        shutil.rmtree(self.folder / "run-small", ignore_errors=True) if "small" not in self.figures else None
        self.once("small", lambda: self.build(self.folder / "run-small", small, 0.25))
        large = write_questions(self.folder / f"questions-{self.questions}", self.questions)
        while not self.parts or self.parts[-1]["code"] not in ENDED:
            self.part(large)
            leave_if_told()

    def command(self, name: str, *arguments: str, runs: int = 1) -> Figures:
        """A command that reads the run; the quickest of `runs`."""

        def work() -> Figures:
            every_s = 0.02 if runs > 1 else 0.1
            made = [Watched(list(arguments), self.folder / "times.json", every_s=every_s).run() for _ in range(runs)]
            best = min(made, key=lambda figures: figures["seconds"])
            return {key: value for key, value in best.items() if key not in ("transactions", "commits")}

        found: Figures = self.once(name, work)
        return found

    def reading(self) -> None:
        """All that a finished run is read for."""
        run = ["--run", str(self.large)]
        with Instant() as server:
            questions = self.folder / f"questions-{self.questions}" / "questions.jsonl"
            settings = write_settings(questions.parent, server.port)
            self.command(
                "resume with the file", "build", str(questions), "--config", str(settings), *run, "--no-datasets"
            )
            self.command("resume without it", "build", *run, "--no-datasets")
        self.command("status --json", "status", *run, "--json", runs=3)
        self.command("report", "report", *run)
        self.keep("report bytes", (self.large / "report.html").stat().st_size)
        for what, form in (
            ("paths", "jsonl"), ("paths", "parquet"), ("reason", "jsonl"), ("reason", "trl"), ("summary", "trl"),
            ("summary", "llamafactory"), ("preference", "trl"), ("calls", "jsonl"),
        ):  # fmt: skip
            self.export(what, form)

    def export(self, what: str, form: str) -> None:
        """An export, its time, and its size."""
        name = f"export {what} {form}"
        out = self.folder / "exports" / f"{what}-{form}"
        figures = self.command(
            name, "export", "--run", str(self.large), "--what", what, "--format", form, "--out", str(out)
        )
        if "bytes" not in figures:
            places = [out, out.with_name(out.name + ".images")]
            self.keep(name, figures | {"bytes": sum(map(size, places))})
            for place in places:
                shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)

    def result(self) -> Figures:
        """The figures that are asked for."""
        small, parts = self.figures["small"], self.parts
        pictures = self.large / "images"
        reading = {
            name: {key: value for key, value in figures.items() if key != "code"}
            for name, figures in self.figures.items()
            if name.startswith(("resume w", "status", "report", "export")) and isinstance(figures, dict)
        }
        return {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "load": os.getloadavg(),
            "questions": self.questions,
            "questions_of_small_run": self.reference,
            "paths": PATHS,
            "requests": sum(part["requests"] for part in parts),
            "memory_mb": {
                "peak_of_small_run": small["peak_mb"],
                "peak": max(part["peak_mb"] for part in parts),
                "over_small_run": round(max(part["peak_mb"] for part in parts) - small["peak_mb"], 1),
                "building_small_run": memory_of(small["samples"]),
                "building": [memory_of(part["samples"]) for part in parts],
            },
            "processes": [
                {
                    "seconds": part["seconds"],
                    "processor_s": part["processor_s"],
                    "requests": part["requests"],
                    "requests_per_s": round(part["requests"] / building_s(part["samples"]), 1),
                    "first_request_s": part["first_request_s"],
                }
                for part in parts
            ],
            "commit_ms": {
                what: {str(share): quantile_ms(parts[-1][what], share) for share in (0.5, 0.95, 0.99)}
                | {"count": sum(parts[-1][what])}
                for what in ("commits", "transactions")
            },
            "run_db_bytes": size(self.large / "run.db"),
            "run_db_bytes_per_path": round(size(self.large / "run.db") / self.questions / PATHS),
            "pictures": {"files": len(list(pictures.iterdir())), "bytes": size(pictures)},
            "datasets_bytes": {place.name: size(place) for place in sorted((self.large / "datasets").iterdir())},
            "report_bytes": self.figures["report bytes"],
            "reading": reading,
        }


def size(path: Path) -> int:
    """The bytes of a file or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else 0


def building(samples: list[Any]) -> list[Any]:
    """The samples between the first request and the last one."""
    last = max(sample[2] for sample in samples)
    return [sample for sample in samples if 0 < sample[2] < last] or samples


def building_s(samples: list[Any]) -> float:
    """The seconds in which requests were answered."""
    during = building(samples)
    return float(max(during[-1][0] - during[0][0], 0.001))


def memory_of(samples: list[Any]) -> dict[str, float]:
    """The memory while requests were answered: at a tenth, at the end, and its slope by least squares.

    The slope leaves the first tenth out, in which caches fill, and is in MB for 100,000 questions.
    """
    during = building(samples)
    during = during[len(during) // 10 :]
    requests, memory = [sample[2] for sample in during], [sample[1] for sample in during]
    mean, level = sum(requests) / len(during), sum(memory) / len(during)
    spread = sum((x - mean) ** 2 for x in requests) or 1
    slope = sum((x - mean) * (y - level) for x, y in zip(requests, memory, strict=True)) / spread
    return {
        "at_a_tenth": memory[0],
        "at_the_end": memory[-1],
        "slope_mb_per_100k_questions": round(slope * REQUESTS * 100_000, 2),
    }


def draw(soak: Soak, out: Path) -> None:
    """The curve of the memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4.5))
    colours = {"starting": "#999999", "checking": "#1f77b4", "building": "#2ca02c", "datasets": "#d62728"}
    shown: set[str] = set()
    offset = 0.0
    for part in soak.parts:
        samples = part["samples"]
        for phase in dict.fromkeys(sample[3] for sample in samples):
            points = [(offset + at / 60, mb) for at, mb, _, where in samples if where == phase and mb]
            label = None if phase in shown else phase
            shown.add(phase)
            axes.plot(*zip(*points, strict=True), color=colours[phase], linewidth=1, label=label) if points else None
        offset += samples[-1][0] / 60
        axes.axvline(offset, color="black", linewidth=0.8, linestyle=":") if part["code"] < 0 else None
    small = soak.figures["small"]["peak_mb"]
    axes.axhline(small, color="black", linewidth=0.8, linestyle="--", label=f"peak of {soak.reference:,} questions")
    axes.axhline(small + 50, color="grey", linewidth=0.8, linestyle="--", label="50 MB more")
    axes.set(xlabel="minutes (dotted: killed with -9, resumed)", ylabel="resident memory, MB", ylim=(0, None))
    axes.set_title(f"insightv build, {soak.questions:,} questions x {PATHS} paths")
    axes.legend(loc="center", fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main() -> None:
    """Build, read, write the figures and the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--reference", type=int, default=1000, help="questions of the small run")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "soak")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "soak.json")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: STOP.set())
    soak = Soak(options.folder, options.questions, options.reference)
    soak.builds()
    soak.reading()
    result = soak.result()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    draw(soak, options.out.with_suffix(".png"))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
