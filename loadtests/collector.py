"""The whole run in one place, on the master (or the only process): merges, writes the files, judges at the end."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from loadtests.live import Recent, Recently
from webapp.clock import now_ns
from webapp.core.generator import Watch
from webapp.core.loadplan import Plan
from webapp.core.loadstats import LoadStats, exit_code
from webapp.core.paired import Pairing

VERSIONS = {"python": platform.python_version(), "platform": platform.platform()} | {
    name: version(name) for name in ("locust", "gevent", "geventhttpclient", "wsproto", "orjson")
}


class Collector:
    """Takes what registries hand on. `out` is the folder for the files, None for none."""

    def __init__(self, plan: Plan, out: Path | None, t0_ns: int, started_at: float) -> None:
        self.plan, self.t0_ns, self.started_at = plan, t0_ns, started_at
        self.stats = LoadStats(plan.window, plan.limits())
        self.watch = Watch()
        self.pairing = Pairing(plan.slugs) if len(plan.slugs) > 1 and plan.mode != "users" else None
        self._recently = Recently()
        self._running: dict[str, Mapping[str, list[int]]] = {}
        self._begun: dict[str, int] = {}
        self._over: dict[str, bool] = {}
        self._out = out
        self._requests = self._live = None
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            self._requests = open(out / "requests.jsonl", "wb")  # noqa: SIM115 (closed in `finish`)
            self._live = open(out / "live.jsonl", "wb")  # noqa: SIM115

    def absorb(self, source: str, taken: Mapping[str, Any]) -> None:
        """Add what the registry of process `source` took."""
        self.stats.merge_data(taken["stats"])
        news = {slug: Recent.from_data(entry) for slug, entry in taken["news"].items()}
        self._recently.add(self.now_ns, news)
        self.watch.merge(Watch.from_data(taken["watch"]))
        self._running[source] = taken["running"]
        self._begun[source], self._over[source] = taken["begun"], taken["over"]
        for line in taken["lines"]:
            if self._requests is not None:
                self._requests.write(line + b"\n")
            if self.pairing is not None:
                self.pairing.add(orjson.loads(line))
        if self._requests is not None:
            self._requests.flush()

    @property
    def now_ns(self) -> int:
        """Nanoseconds since the run's start."""
        return now_ns() - self.t0_ns

    @property
    def in_flight(self) -> int:
        return sum(sum(counts) for running in self._running.values() for counts in running.values())

    @property
    def drained(self) -> bool:
        """Whether every process has said that it begins nothing more and has nothing running."""
        return bool(self._over) and all(self._over.values()) and not self.in_flight

    def live_line(self, users: int) -> dict[str, Any]:
        """Return how things stand, and write it."""
        at_ns = self.now_ns
        backends = {}
        for slug in self.plan.slugs:
            counts = [running.get(slug, (0, 0)) for running in self._running.values()]
            running, waiting = (sum(pair[k] for pair in counts) for k in (0, 1))
            backends[slug] = {**self._recently.figures(at_ns, slug), "running": running, "waiting": waiting}
        line: dict[str, Any] = {
            "t_s": round(at_ns / 1e9, 3),
            "users": users,
            "backends": backends,
            "generator": {
                "hub_lag_p99_ms": _ms(self.watch.hub_lag.percentile(99)),
                "cpu_cores": round(self.watch.cpu, 3),
                "begun": sum(self._begun.values()),
            },
        }
        if self.pairing is not None:
            line["pairs"] = self.pairing.verdicts()
        if self._live is not None:
            self._live.write(orjson.dumps(line) + b"\n")
            self._live.flush()
        return line

    def summary(self, ended: str) -> dict[str, Any]:
        """Return summary.json; `ended` is "complete", "stopped" or "interrupted"."""
        plan, stats = self.plan, self.stats
        window = plan.window
        measured_s = max(0, min(window.end, self.now_ns) - window.start) / 1e9
        for slug in plan.slugs:
            self.watch.send_late.merge(stats.backend(slug).histogram("late"))
        reasons: list[str] = []
        blocks = stats.summary(plan.slugs, measured_s)
        for slug, block in blocks.items():
            backend = stats.backend(slug)
            own = Watch(self.watch.hub_lag, backend.histogram("late"), self.watch.cpu)
            why = own.reasons(backend.histogram("ttft"), backend.histogram("icl"))
            block["generator"] = own.summary(why)
            block["slo"] = stats.slo.text or None
            reasons += [reason for reason in why if reason not in reasons]
        found: dict[str, Any] = {
            "backends": blocks,
            "generator": self.watch.summary(reasons),
            "slo": {"text": stats.slo.text, "name": stats.slo.name, "target": stats.slo.target} if stats.slo else None,
            "versions": VERSIONS,
            "plan": described(plan),
            "started_at": self.started_at,
            "clock": {"t0_ns": self.t0_ns},
            "duration_s": round(min(plan.duration_s, self.now_ns / 1e9), 3),
            "measured_s": round(measured_s, 3),
            "ended": ended,
            "exit_code": exit_code(stats, plan.slugs, bool(reasons)),
        }
        if self.pairing is not None:
            found["pairs"] = self.pairing.verdicts()
        return found

    def finish(self, ended: str) -> dict[str, Any]:
        """Write the summary, close the files and return it."""
        found = self.summary(ended)
        for file in (self._requests, self._live):
            if file is not None:
                file.close()
        self._requests = self._live = None
        if self._out is not None:
            partial = self._out / "summary.json.part"
            partial.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
            partial.replace(self._out / "summary.json")
        return found


def described(plan: Plan) -> dict[str, Any]:
    """Return the plan as it is published: without the prompts' texts and the names of keys."""
    data = plan.as_data()
    data["prompts"] = len(plan.prompts)
    data["schedule"]["trace"] = len(plan.schedule.trace)
    data["targets"] = [{**target, "key": bool(target["key"])} for target in data["targets"]]
    return data


def _ms(value: float | None) -> float | None:
    return None if value is None else round(value / 1e6, 3)
