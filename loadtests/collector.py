"""The whole run in one place, on the master (or the only process): merges, writes the files, judges at the end."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from loadtests.live import Recent, Recently
from webapp.clock import now_ns
from webapp.core import loadsummary, vllmbench
from webapp.core.generator import LIMITED, Watch
from webapp.core.loadplan import Plan
from webapp.core.loadstats import LoadStats
from webapp.core.loadsummary import COMPLETE
from webapp.core.paired import Pairing
from webapp.core.servermetrics import ServerState, ServerWatch

STATE_S = 5.0  # for how long what a server has said of itself is taken for what it does
VERSIONS = {"python": platform.python_version(), "platform": platform.platform(), "cores": str(os.cpu_count())} | {
    name: version(name) for name in ("locust", "gevent", "geventhttpclient", "wsproto", "orjson")
}


class Collector:
    """Takes what registries hand on. `out` is the folder for the files, None for none; `sources` the number of
    processes that are expected to.
    """

    def __init__(self, plan: Plan, out: Path | None, t0_ns: int, started_at: float, sources: int = 1) -> None:
        self._sources = sources
        self.plan, self.t0_ns, self.started_at = plan, t0_ns, started_at
        self.stats = LoadStats(plan.window, plan.limits())
        self.watch = Watch()
        self.pairing = Pairing(plan.slugs) if plan.is_paired else None
        self._recently = Recently()
        self._running: dict[str, Mapping[str, list[int]]] = {}
        self._begun: dict[str, int] = {}
        self._over: dict[str, bool] = {}
        self._servers = {slug: ServerWatch() for slug in plan.slugs}
        self._states: dict[str, tuple[int, ServerState]] = {}
        self._series: list[dict[str, Any]] = []
        self._out = out
        self._requests = self._live = None
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            _write(out / "start.json", orjson.dumps(self._start))
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
                self._pair(orjson.loads(line))
        if self._requests is not None:
            self._requests.flush()

    def see_server(self, slug: str, state: ServerState) -> None:
        """Take in what the server behind a backend says of itself."""
        self._servers[slug].see(state, sum(self._in_flight(slug)))
        self._states[slug] = (self.now_ns, state)

    def _state(self, at_ns: int, slug: str) -> dict[str, Any] | None:
        seen_ns, state = self._states.get(slug, (0, None))
        return state.as_data() if state is not None and at_ns - seen_ns < STATE_S * 1e9 else None

    def _in_flight(self, slug: str) -> tuple[int, int]:
        """Return how many of our requests stream, and how many wait for their first token."""
        counts = [running.get(slug, (0, 0)) for running in self._running.values()]
        return sum(pair[0] for pair in counts), sum(pair[1] for pair in counts)

    def _pair(self, record: Mapping[str, Any]) -> None:
        if self.pairing is not None and self.plan.window.holds((record["marks_us"]["intended"] or 0) * 1000):
            self.pairing.add(record)

    @property
    def now_ns(self) -> int:
        """Nanoseconds since the run's start."""
        return now_ns() - self.t0_ns

    def forget(self, source: str) -> None:
        """Wait no longer for a process that was lost."""
        self._over[source] = True
        self._running.pop(source, None)

    @property
    def in_flight(self) -> int:
        return sum(sum(counts) for running in self._running.values() for counts in running.values())

    @property
    def drained(self) -> bool:
        """Whether every process has said that it begins nothing more and has nothing running."""
        return len(self._over) >= self._sources and all(self._over.values()) and not self.in_flight

    def live_line(self, users: int, rate: float | None) -> dict[str, Any]:
        """Return how things stand, and write it; `rate` is an open loop's per second on each backend."""
        at_ns = self.now_ns
        backends = {}
        for slug in self.plan.slugs:
            running, waiting = self._in_flight(slug)
            backends[slug] = {
                **self._recently.figures(at_ns, slug),
                "running": running,
                "waiting": waiting,
                "server": self._state(at_ns, slug),
            }
            if self.stats.slo:
                stats = self.stats.backend(slug)
                backends[slug] |= {"asked": stats.asked, "good": stats.good}
        line: dict[str, Any] = {
            "t_s": round(at_ns / 1e9, 3),
            "users": users,
            "rate": rate,
            "backends": backends,
            "generator": {
                "hub_lag_p99_ms": _ms(self.watch.hub_lag.percentile(99)),
                "cpu_cores": round(self.watch.cpu, 3),
                "begun": sum(self._begun.values()),
                "reasons": loadsummary.together(loadsummary.own_reasons(self.plan.slugs, self.stats, self.watch)),
            },
        }
        if self.pairing is not None:
            line["pairs"] = self.pairing.verdicts()
        self._series.append(line)
        if len(self._series) > 2 * loadsummary.POINTS:
            self._series = self._series[::2]
        if self._live is not None:
            self._live.write(orjson.dumps(line) + b"\n")
            self._live.flush()
        return line

    def summary(self, ended: str, lost: int = 0) -> dict[str, Any]:
        """Return summary.json; `ended` is "complete", "stopped" or "interrupted", `lost` the processes that died."""
        found = loadsummary.summarise(
            self.plan,
            self.stats,
            self.watch,
            ended=ended,
            elapsed_ns=self._elapsed_ns(ended),
            servers=self._servers,
            **self._start,
        )
        if self.pairing is not None:
            found["pairs"] = self.pairing.verdicts()
        if lost:
            why = f"{lost} of {self._sources} generator processes were lost with their requests."
            for generator in (found["generator"], *(block["generator"] for block in found["backends"].values())):
                generator["reasons"].append(why)
                generator["verdict"] = LIMITED
            found["exit_code"] = found["exit_code"] or 4
        return found

    @property
    def _start(self) -> dict[str, Any]:
        """What stands in the summary and is known from the start: written at once, for a run that is killed."""
        return {"versions": VERSIONS, "started_at": self.started_at, "t0_ns": self.t0_ns}

    def _elapsed_ns(self, ended: str) -> int:
        """Return how long the run has lasted: one with nothing left to ask before its time, as long as its answers."""
        at_ns = self.now_ns
        early = ended == COMPLETE and at_ns < self.plan.duration_s * 1e9
        return min(at_ns, self.stats.last) if early else at_ns

    def finish(self, ended: str, lost: int = 0) -> dict[str, Any]:
        """Write the summary, close the files and return it."""
        found = self.summary(ended, lost)
        for file in (self._requests, self._live):
            if file is not None:
                file.close()
        self._requests = self._live = None
        if self._out is not None:
            charts = loadsummary.chart_data(self.plan, self.stats, self._series)
            _write(self._out / "charts.json", orjson.dumps(charts))
            vllm = vllmbench.results(self.plan, self.stats, found["measured_s"], self.started_at)
            _write(self._out / "vllm.json", vllm)
            _write(self._out / "summary.json", orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return found


def _write(path: Path, data: bytes) -> None:
    """Write a file that is never seen half written."""
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    partial.replace(path)


def _ms(value: float | None) -> float | None:
    return None if value is None else round(value / 1e6, 3)
