# SPDX-License-Identifier: Apache-2.0
"""Counters of the registry, in the text format of Prometheus."""

from __future__ import annotations

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Upper bounds in seconds; Prometheus' defaults from 5 ms on, and two below for a fast registry.
_BOUNDS = (0.0005, 0.002, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0)


class Metrics:
    """Requests by method and status, their durations, and gauges read when asked.

    `add` may be called from any thread, the rest from one.
    """

    def __init__(self) -> None:
        self._requests: dict[tuple[str, int], int] = {}
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0
        self._guard = threading.Lock()
        self._counters: dict[str, tuple[str, float]] = {}
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def count(self, method: str, status: int, seconds: float) -> None:
        """One request was answered."""
        key = (method, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        self._seconds += seconds
        for position, bound in enumerate(_BOUNDS):
            if seconds <= bound:
                self._buckets[position] += 1
                return
        self._buckets[-1] += 1

    def add(self, name: str, amount: float, *, help: str) -> None:
        """Raise a counter."""
        with self._guard:
            before = self._counters.get(name, (help, 0.0))[1]
            self._counters[name] = (help, before + amount)

    def text(self) -> str:
        """Everything, as `/metrics` gives it."""
        lines = [
            "# HELP lamina_registry_requests_total Requests answered.",
            "# TYPE lamina_registry_requests_total counter",
        ]
        for (method, status), number in sorted(self._requests.items()):
            known = method if method in _METHODS else "other"
            lines.append(
                f'lamina_registry_requests_total{{method="{known}",status="{status}"}} {number}'
            )
        lines += [
            "# HELP lamina_registry_request_seconds Time from a request's head to its answer.",
            "# TYPE lamina_registry_request_seconds histogram",
        ]
        total = 0
        for bound, number in zip((*_BOUNDS, "+Inf"), self._buckets, strict=True):
            total += number
            lines.append(f'lamina_registry_request_seconds_bucket{{le="{bound}"}} {total}')
        lines.append(f"lamina_registry_request_seconds_sum {self._seconds:.6f}")
        lines.append(f"lamina_registry_request_seconds_count {total}")
        for name, (help, value) in sorted(dict(self._counters).items()):
            lines += [f"# HELP {name} {help}", f"# TYPE {name} counter", f"{name} {value:g}"]
        for name, (help, read) in sorted(dict(self.gauges).items()):
            lines += [f"# HELP {name} {help}", f"# TYPE {name} gauge", f"{name} {read():g}"]
        return "\n".join(lines) + "\n"


_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"})
