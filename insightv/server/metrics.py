"""What `/metrics` tells, in the text format of Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

GAUGES = {"in_flight": "questions at work", "bytes_in_flight": "bytes that the requests at work hold"}
COUNTERS = {
    "requests": "requests by route and status",
    "tokens": "tokens of questions by kind",
    "answers": "answers by what the summary agent did with the path: followed, overruled, or unknown",
    "paths": "paths by status",
    "errors": "requests that ended with an error, by its code",
}
TIMES = {
    "first_step": "seconds from a streamed request to its first step",
    "answer": "seconds from a request to its answer",
}


class Metrics:
    """Counters and times since the start; what is so now, as `in_flight` is the number of questions at work."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.bytes_in_flight = 0
        self._counts: dict[str, Counter[tuple[tuple[str, str], ...]]] = {name: Counter() for name in COUNTERS}
        self._buckets: dict[str, list[int]] = {name: [0] * (len(_BUCKETS) + 1) for name in TIMES}
        self._sums: dict[str, float] = defaultdict(float)

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to a counter."""
        self._counts[name][tuple(sorted(labels.items()))] += by

    def time(self, name: str, seconds: float) -> None:
        """Add to a histogram."""
        self._buckets[name][bisect_left(_BUCKETS, seconds)] += 1
        self._sums[name] += seconds

    def mean(self, name: str) -> float | None:
        """The mean of a time; None where there was none."""
        total = sum(self._buckets[name])
        return self._sums[name] / total if total else None

    def text(self) -> str:
        """All of it."""
        lines: list[str] = []
        for name, what in GAUGES.items():
            lines += [f"# HELP insightv_{name} {what}", f"# TYPE insightv_{name} gauge"]
            lines.append(f"insightv_{name} {getattr(self, name)}")
        for name, what in COUNTERS.items():
            lines += [f"# HELP insightv_{name}_total {what}", f"# TYPE insightv_{name}_total counter"]
            for labels, value in sorted(self._counts[name].items()):
                lines.append(f"insightv_{name}_total{_labels(labels)} {value}")
        for name, what in TIMES.items():
            lines += [f"# HELP insightv_{name}_seconds {what}", f"# TYPE insightv_{name}_seconds histogram"]
            below = 0
            for edge, count in zip((*map(str, _BUCKETS), "+Inf"), self._buckets[name], strict=True):
                below += count
                lines.append(f'insightv_{name}_seconds_bucket{{le="{edge}"}} {below}')
            lines.append(f"insightv_{name}_seconds_sum {self._sums[name]:.6f}")
            lines.append(f"insightv_{name}_seconds_count {below}")
        return "\n".join(lines) + "\n"


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    escaped = ((k, v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for k, v in labels)
    inner = ",".join(f'{key}="{value}"' for key, value in escaped)
    return f"{{{inner}}}" if inner else ""
