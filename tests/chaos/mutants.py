"""Seeded bugs, each in a copy of the tree, and whether the tests that should see it do: `make mutants`.

    python -m tests.chaos.mutants [NAME ...] [--json FILE]

A bug is caught if the tests named beside it fail; it survives if they pass. Its place must occur exactly once, so a
bug that has lost its place in the code is an error and not a success. All tests are first run on the copy as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
WANTED = 18


@dataclass(frozen=True)
class Mutant:
    """A bug: what it is, the file, the right text and the wrong one, and the tests that should see it."""

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


RETRY_AFTER = "tests/backends/test_openai_retry_after.py"
STEPS = "tests/agents/test_step_schema.py"
STRANGERS = "tests/chaos/test_strangers.py"

MUTANTS = (
    Mutant(
        "a dropped commit",
        "insightv/runs/database.py",
        'self._connection.execute("COMMIT")',
        'self._connection.execute("ROLLBACK")',
        ("tests/runs/test_database.py",),
    ),
    Mutant(
        "commits that are not synced",
        "insightv/runs/database.py",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = OFF",
        ("tests/runs/test_database.py",),
    ),
    Mutant(
        "a swallowed exception: a question without an outcome",
        "insightv/plugin_guard.py",
        "return task is not None and task.cancelling() > 0",
        "return True",
        (f"{STRANGERS}::test_a_scorer_costs_its_scores[cancelled]",),
    ),
    Mutant(
        "a reply that cannot be read again is recorded",
        "insightv/runs/journal.py",
        "            return replies if self._own else _recordable(replies, n)\n",
        "            return replies\n",
        (f"{STRANGERS}::test_a_backend_costs_its_calls_which_are_counted",),
    ),
    Mutant(
        "a score reader that takes the first number",
        "insightv/assess/path_prompt.py",
        "    value = entry[name]\n",
        "    import re\n\n    value = int((re.findall(r'\\d+', str(entry[name])) or [0])[0])\n",
        ("tests/assess/test_path.py",),
    ),
    Mutant(
        "a score that is clamped",
        "insightv/assess/path_prompt.py",
        "    value = entry[name]\n",
        "    value = entry[name]\n    value = min(value, most) if type(value) is int else value\n",
        ("tests/assess/test_path.py",),
    ),
    Mutant(
        "no score counts as the lowest",
        "insightv/assess/bands.py",
        "    if not values:\n        return Band.unscored\n",
        "    values = values or [1.0]\n",
        ("tests/assess/test_bands.py",),
    ),
    Mutant(
        "an echo of the candidate is read as a judgement",
        "insightv/assess/quoting.py",
        "    return any(core in _squeezed(text) or",
        "    return core == '' and any(core in _squeezed(text) or",
        ("tests/assess/test_injection.py",),
    ),
    Mutant(
        "a path that a question forges stands before the true one",
        "insightv/agents/fencing.py",
        "    if could_be_ours(text, tags):",
        "    if could_be_ours(text):",
        ("tests/agents/test_fencing.py",),
    ),
    Mutant(
        "a retry that ignores Retry-After",
        "insightv/backends/openai/classify.py",
        "    wait_s = retry_after_s(reply.headers, time.time())\n",
        "    wait_s = None\n",
        (f"{RETRY_AFTER}::test_no_worker_asks_before_the_moment",),
    ),
    Mutant(
        "a limit that only the worker that met it keeps",
        "insightv/backends/openai/endpoint.py",
        "        self._opens_at, self._spread_s, self.named = now + wait_s, spread_s, named\n",
        "        pass\n",
        (f"{RETRY_AFTER}::test_no_worker_asks_before_the_moment",),
    ),
    Mutant(
        "failed tries cost nothing",
        "insightv/backends/openai/retry.py",
        "            requests=before.requests + int(sent),\n",
        "            requests=1,\n",
        ("tests/backends/test_openai_replies.py::test_transient_faults_are_tried_again",),
    ),
    Mutant(
        "a reply that was cut counts as whole",
        "insightv/backends/openai/http.py",
        "            if response.status < 400:\n",
        "            if False:\n",
        ("tests/backends/test_openai_replies.py::test_a_reply_that_is_cut_is_counted_as_such_and_not_read",),
    ),
    Mutant(
        "a cut object is mended",
        "insightv/agents/replies/json_reply.py",
        '            raise Unreadable("cut", f"the object that begins at character {start} has no end")\n',
        "            yield body[start:] + '\"}'\n            return\n",
        (f"{STEPS}::test_labelled_reply", f"{STEPS}::test_a_cut_reply_is_never_accepted"),
    ),
    Mutant(
        "NaN is a number",
        "insightv/strict_json.py",
        "        parse_constant=_bad_number,\n",
        "",
        (f"{STEPS}::test_labelled_reply",),
    ),
    Mutant(
        "of two equal keys the last wins",
        "insightv/strict_json.py",
        "    if len(value) != len(pairs):\n",
        "    if len(value) > len(pairs):\n",
        (f"{STEPS}::test_labelled_reply",),
    ),
    Mutant(
        "a resume that trusts positions: a call's key without its messages",
        "insightv/backends/call_key.py",
        'b"".join([message.digest for message in messages])',
        'b"".join([b"" for message in messages])',
        ("tests/backends/test_replay.py::test_whatever_decides_the_reply_changes_the_key",),
    ),
    Mutant(
        "a resume that looks at ids alone",
        "insightv/runs/ingest.py",
        "WHERE q.present = 1 AND q.digest <> e.digest ORDER BY 1",
        "WHERE q.present = 2 AND q.digest <> e.digest ORDER BY 1",
        ("tests/test_pipeline.py::test_questions_that_differ_from_the_run_are_named",),
    ),
    Mutant(
        "a slot lost with every waiter that is cancelled",
        "insightv/runs/limiter.py",
        "            if turn.done() and not turn.cancelled() and turn.exception() is None:\n",
        "            if turn.done() and turn.cancelled():\n",
        ("tests/runs/test_limiter.py",),
    ),
    Mutant(
        "a file written in its place",
        "insightv/atomic_files.py",
        'fresh = _beside(target, "new")\n        try:\n            with open(fresh, "xb"',
        'fresh = target\n        try:\n            with open(fresh, "wb"',
        ("tests/test_atomic_files.py",),
    ),
    Mutant(
        "a run folder's settings count as the user's",
        "insightv/config/trust.py",
        "    if source is not None and not own:\n",
        "    if source is None:\n",
        ("tests/config/test_trust.py",),
    ),
    Mutant(
        "a value of any type is read from any column",
        "insightv/runs/rows.py",
        "        if not fits or (",
        "        if False and (",
        ("tests/runs/test_strangers_folder.py::test_what_is_damaged_is_named",),
    ),
    Mutant(
        "an image path may lead out of its folder",
        "insightv/inputs/image_sources.py",
        "    if os.path.commonpath((top, real)) != top:\n",
        "    if os.path.commonpath((top, real)) != top and False:\n",
        ("tests/inputs/test_images.py::test_paths_stay_under_the_root",),
    ),
    Mutant(
        "images are fetched from private addresses",
        "insightv/inputs/fetch.py",
        "not address.is_global or ",
        "",
        ("tests/inputs/test_fetch.py::test_never_connects_to_anything_private",),
    ),
    Mutant(
        "the key stays in what a plugin says",
        "insightv/redact.py",
        "            text = text.replace(form, MASK)\n",
        "            text = text.replace(MASK, form)\n",
        ("tests/chaos/test_secrets.py::test_a_plugin_that_logs_and_raises_the_key",),
    ),
    Mutant(
        "a run that two processes may write",
        "insightv/runs/lock.py",
        "            self._lock.acquire()\n",
        "",
        ("tests/chaos/test_storage.py::test_of_many_that_start_at_one_moment_exactly_one_runs",),
    ),
)


def copied(folder: Path) -> Path:
    """The tree as git knows it, new files too, in a folder."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def failure(tree: Path, tests: tuple[str, ...]) -> str:
    """What pytest says where tests fail in a tree; empty where they pass.

    Raises:
        RuntimeError: they could not be run at all.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 2) or "no tests ran" in done.stdout:
        raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout[-4000:] if done.returncode else ""


def tried(mutant: Mutant, tree: Path) -> bool:
    """Whether the tests catch the bug."""
    path = tree / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.right) != 1:
        raise RuntimeError(f"{mutant.name}: its place occurs {text.count(mutant.right)} times in {mutant.file}")
    path.write_text(text.replace(mutant.right, mutant.wrong), encoding="utf-8")
    try:
        return bool(failure(tree, mutant.tests))
    finally:
        path.write_text(text, encoding="utf-8")


def main() -> None:
    """Try the bugs and print a table; leave with 1 where fewer than nine in ten are caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="words of the bugs to try; all by default")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    words = arguments.names
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    rows = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = copied(Path(folder))
        if said := failure(tree, tuple(dict.fromkeys(test for mutant in chosen for test in mutant.tests))):
            sys.exit(f"{said}\nthe tests fail without any bug; mend that first")
        for mutant in chosen:
            began = time.monotonic()
            caught = tried(mutant, tree)
            rows.append({"bug": mutant.name, "file": mutant.file, "caught": caught, "tests": list(mutant.tests)})
            seconds = time.monotonic() - began
            print(
                f"{'caught' if caught else 'SURVIVED':<9} {seconds:5.1f} s  {mutant.file:<32} {mutant.name}", flush=True
            )
    seen = sum(bool(row["caught"]) for row in rows)
    print(f"{seen} of {len(rows)} caught")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if seen * 20 >= WANTED * len(rows) else 1)


if __name__ == "__main__":
    main()
