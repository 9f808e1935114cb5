"""One load run that this process supervises: its generator, or those that a search or a sweep starts one after the
other. Runs in a thread of its own, which is the generators' parent to the kernel.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from webapp.clock import now_ns
from webapp.core.loadplan import Plan
from webapp.core.loadsummary import INTERRUPTED, STOPPED
from webapp.services import loadsearch
from webapp.services.loadprocess import LoadProcess, control, kill_group, prepare
from webapp.services.loadresults import read_live, results

INSIST_S = 8.0
GRACE_S = 20.0  # beyond a run's own time, before it is taken for hung
LOOK_S = 0.25
NS_PER_S = 1_000_000_000


class Job:
    """A plan on its way in a folder. `begun` is told the process group of each generator, `told` the summary of what a
    search or a sweep has found so far.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        keys: Mapping[str, str],
        begun: Callable[[int], None],
        told: Callable[[dict[str, Any]], None],
    ) -> None:
        self._plan, self._folder, self._keys = plan, folder, keys
        self._begun, self._told = begun, told
        self._lock = threading.Lock()
        self._process: LoadProcess | None = None
        self.stopping = False
        self._start_ns = now_ns()
        self._last: Path | None = None  # the folder of the run of a series that was begun last
        self._steps, self._done = 0, 0  # runs of a series that were begun, and those of which something was told
        self.note = ""  # what was odd about it, "" for nothing

    def run(self) -> None:
        """Run to the end, whatever that is; the results lie in the folder."""
        if not self._plan.is_series:
            self._generate(self._plan, self._folder)
            return
        prepare(self._plan, self._folder)
        loadsearch.series(self._plan, self._folder, self._step, told=self._tell)

    def stop(self) -> None:
        """Ask for the end: nothing leaves any more within a fifth of a second, and nothing more is started."""
        with self._lock:
            self.stopping = True
            process = self._process
        if process is not None:
            control(process.folder, {"stop": True})
            insistence = threading.Timer(INSIST_S, _insist, (process,))
            insistence.daemon = True
            insistence.start()

    def steer(self, load: Mapping[str, float]) -> None:
        """Change the load of the generator that runs."""
        if self._process is not None:
            control(self._process.folder, load)

    def _step(self, plan: Plan, folder: Path) -> dict[str, Any]:
        """Make one run of a series and return its summary."""
        self._steps += 1
        load = plan.schedule.most() if plan.mode == "rate" else plan.users
        step = {"number": self._steps, "done": self._done, "backend": plan.slugs[0], "load": load}
        step |= {"duration_s": plan.duration_s, "again": folder == self._last}
        self._last = folder
        self._generate(plan, folder, Follower(folder, self._folder, self._start_ns, step).look)
        summary, _, _ = results(folder)
        return summary or {"ended": STOPPED if self.stopping else INTERRUPTED}

    def _tell(self, found: dict[str, Any]) -> None:
        self._done += 1
        self._told(found)

    def _generate(self, plan: Plan, folder: Path, look: Callable[[], None] = lambda: None) -> None:
        """Run one generator to its end, looking now and then; start none once a stop was asked for."""
        with self._lock:
            if self.stopping:
                return
            process = self._process = LoadProcess(plan.checked(), folder, self._keys)
        self._begun(process.group)
        hung_ns = now_ns() + round((plan.duration_s + plan.grace_s + GRACE_S) * NS_PER_S)
        while process.wait(LOOK_S) is None:
            look()
            if now_ns() > hung_ns:
                process.stop()
                self.note = "The load generator hung and was ended."
        kill_group(process.group, signal.SIGKILL)
        look()


class Follower:
    """Copies the live lines of one run of a series to the series' own, on one axis of time that began at `start_ns`.
    `step` says which run it is.
    """

    def __init__(self, folder: Path, into: Path, start_ns: int, step: Mapping[str, Any]) -> None:
        self._folder, self._into = folder, into / "live.jsonl"
        self._start_ns, self._step = start_ns, step
        self._offset = 0
        self._shift_s: float | None = None

    def look(self) -> None:
        """Copy what is new."""
        lines, self._offset = read_live(self._folder, self._offset)
        if not lines:
            return
        if self._shift_s is None:
            self._shift_s = (now_ns() - self._start_ns) / NS_PER_S - lines[0]["t_s"]
        with open(self._into, "ab") as whole:
            for line in lines:
                placed = {"t_s": round(line["t_s"] + self._shift_s, 3), "step": {**self._step, "t_s": line["t_s"]}}
                whole.write(orjson.dumps(line | placed) + b"\n")


def _insist(process: LoadProcess) -> None:
    """End a process that has not listened."""
    if process.wait(0) is None:
        process.stop()
