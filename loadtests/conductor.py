"""Hooks into Locust: one clock for all processes, statistics on their way, a start, an end, and files.

The master (or a process on its own) conducts. At a test's start it sends the plan and the instant of time zero to its
workers; they hand their registries on with Locust's own reports, four times a second, and the master merges them.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from functools import cache
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
import locust.argument_parser
import locust.runners
import orjson
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests import plain
from loadtests.collector import Collector
from loadtests.registry import BREATH_S
from loadtests.servers import Servers
from loadtests.session import Session, open_session, session_of
from loadtests.steering import STEER, Steering
from webapp.clock import now_ns
from webapp.core import loadplan, loadsummary
from webapp.core.loadplan import Plan
from webapp.core.loadsummary import COMPLETE, INTERRUPTED, STOPPED

log = logging.getLogger(__name__)

START = "splitsecond_start"
STOP = "splitsecond_stop"
REPORT_S = 0.25
LIVE_S = 0.4
LOOK_S = 0.1
LEAD_S = 0.4  # from deciding on time zero to time zero: long enough for a message to every worker
LONE_LEAD_S = 0.1
SETTLE_S = 0.6  # after the last request, for the workers' last report
NOT_RUN = 2  # exit code


class Conductor:
    """One process's part in conducting; only the master's or a lone process's has a collector."""

    def __init__(self, environment: Environment, plan: Plan | None, out: Path | None) -> None:
        self.environment = environment
        self._plan, self._out = plan, out
        self._collector: Collector | None = None
        self._servers: Servers | None = None
        self._greenlet: gevent.Greenlet | None = None
        self._untold: dict[str, dict[str, Any]] = {}  # on a master: workers from which nothing has come yet
        self._start_s = 0.0  # on a worker: which start it has heard of
        self._ended = INTERRUPTED

    @property
    def is_worker(self) -> bool:
        return isinstance(self.environment.runner, WorkerRunner)

    # -- a test starts

    def on_test_start(self, **_: Any) -> None:
        if self.is_worker:
            return  # told by message, which is there first
        self.environment.process_exit_code = None
        lead_s = LEAD_S if isinstance(self._runner, MasterRunner) else LONE_LEAD_S
        start_s = time.time() + lead_s  # noqa: TID251 (a wall clock: workers may live on other hosts)
        try:
            plan = self._plan or plain.plan_of(self.environment)
            self._begin(plan, start_s)
        except (ValueError, OSError) as error:
            log.error("not started: %s", error)
            self.environment.process_exit_code = NOT_RUN
            if not plain.serves_ui(self.environment):
                gevent.spawn(self._quit)
            raise gevent.GreenletExit from None  # Locust's start ends here: users would come who have nowhere to go
        if isinstance(self._runner, MasterRunner):
            # As Locust deals users to the workers of one host, so that the first numbers are all there.
            workers = sorted(worker.id for worker in self._runner.clients.all)
            data = {"plan": orjson.dumps(plan.as_data()), "start_s": start_s, "workers": len(workers)}
            self._untold = {id: {**data, "worker": place} for place, id in enumerate(workers)}
            self._tell()

    def _tell(self) -> None:
        """Send the plan to the workers that have reported nothing yet: who has just connected may have missed it."""
        for id, data in self._untold.items():
            self._runner.send_message(START, data, client_id=id)

    def _begin(self, plan: Plan, start_s: float) -> None:
        session = open_session(self.environment, plan)
        t0_ns = local_instant(start_s)
        session.registry.begin(t0_ns)
        sources = len(self._runner.clients.all) if isinstance(self._runner, MasterRunner) else 1
        self._collector = Collector(plan, self._out, t0_ns, start_s, sources)
        self._servers = Servers(plan.targets, self._collector.see_server)
        self._servers.begin()
        self._ended = INTERRUPTED
        self._greenlet = gevent.spawn(self._conduct, session, self._collector)
        self._greenlet.link_exception(lambda failed: log.error("conducting failed: %r", failed.exception))

    def on_start_message(self, environment: Environment, msg: Any, **_: Any) -> None:
        """On a worker: the plan and the instant of time zero, perhaps once more."""
        if msg.data["start_s"] == self._start_s:
            return
        self._start_s = msg.data["start_s"]
        plan = loadplan.from_data(orjson.loads(msg.data["plan"]))
        session = open_session(environment, plan, msg.data["worker"], msg.data["workers"])
        session.registry.begin(local_instant(self._start_s))

    def on_steer_message(self, environment: Environment, msg: Any, **_: Any) -> None:
        """On a worker: another rate from an instant of the run on, which lies a little ahead."""
        if (session := session_of(environment)) is not None:
            session.registry.steer(msg.data["at_s"], msg.data["rate"])

    def on_stop_message(self, environment: Environment, **_: Any) -> None:
        if (session := session_of(environment)) is not None:
            session.registry.stop()

    # -- while it runs

    def on_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        """On a worker: add what is new to Locust's report."""
        session = session_of(self.environment)
        if session is not None and session.registry.started.is_set():
            data["splitsecond"] = session.registry.take()

    def on_worker_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        """On the master: add a worker's part."""
        if self._collector is not None and "splitsecond" in data:
            self._untold.pop(client_id, None)
            self._collector.absorb(client_id, data["splitsecond"])

    def _absorb_own(self) -> None:
        session = session_of(self.environment)
        if self._collector is not None and session is not None and not isinstance(self._runner, MasterRunner):
            self._collector.absorb("own", session.registry.take())

    @property
    def _runner(self) -> Any:
        return self.environment.runner

    def _conduct(self, session: Session, collector: Collector) -> None:
        """Watch the time, steer, write live lines, and end the run when it is over."""
        plan = session.plan
        live_ns = 0
        steering = Steering(self.environment, session, self._out)
        settle_s = SETTLE_S if isinstance(self._runner, MasterRunner) else 0.0
        while steering.look(collector.now_ns):  # first of all: a stop may have come before the start
            if collector.now_ns > 0 and now_ns() - live_ns >= LIVE_S * 1e9:
                live_ns = now_ns()
                self._absorb_own()
                self._tell()
                for worker in self._lost():
                    collector.forget(worker)
                gevent.sleep(BREATH_S)
                collector.live_line(steering.users, steering.rate_at(collector.now_ns))
            at_s = collector.now_ns / 1e9
            if at_s >= plan.duration_s + plan.grace_s or (at_s >= plan.duration_s + settle_s and collector.drained):
                self._end(COMPLETE)
                return
            if at_s > 1 and collector.drained and not plain.serves_ui(self.environment):
                self._end(COMPLETE)  # a trace that was over before its time, or the cap on requests
                return
            gevent.sleep(LOOK_S)
        self._end(STOPPED)

    def _end(self, ended: str) -> None:
        self._ended = ended
        self._silence()
        gevent.spawn(self._quit)

    def _silence(self) -> None:
        """Let nothing more leave, here and on every worker, at once."""
        if (session := session_of(self.environment)) is not None:
            session.registry.stop()
        if isinstance(self._runner, MasterRunner):
            self._runner.send_message(STOP)

    def _quit(self) -> None:
        if plain.serves_ui(self.environment):
            self._runner.stop()
        else:
            self._runner.quit()

    # -- the end

    def on_test_stop(self, **_: Any) -> None:
        """Where Locust's web page stops a test, it ends there; files are written when Locust quits or here."""
        self._silence()
        if self._collector is not None and plain.serves_ui(self.environment):
            self._ended = STOPPED
            gevent.sleep(REPORT_S * 2)
            self._finish()

    def on_quitting(self, **_: Any) -> None:
        if self._collector is not None:
            self._silence()
            gevent.sleep(REPORT_S / 5)  # killed requests are counted on their way out
            self._finish()

    def _lost(self) -> list[str]:
        """Return the workers from which nothing has been heard for some seconds."""
        runner: Any = self._runner
        return [worker.id for worker in runner.clients.missing] if isinstance(runner, MasterRunner) else []

    def _finish(self) -> None:
        collector = self._collector
        if collector is None:
            return
        self._absorb_own()
        if self._servers is not None:
            self._servers.close()
            self._servers.look()
        self._collector = None
        if self._greenlet is not None and self._greenlet is not gevent.getcurrent():
            self._greenlet.kill(block=False)
        ended = self._ended
        if ended == INTERRUPTED and collector.now_ns >= collector.plan.duration_s * 1e9:
            ended = COMPLETE
        elif ended == INTERRUPTED and self._plan is None:
            ended = STOPPED  # without a plan a run ends when somebody ends it
        summary = collector.finish(ended, len(self._lost()))
        measured = any(block["requests"]["asked"] for block in summary["backends"].values())
        if self._plan is not None or collector.plan.slo or not measured:  # else Locust's own codes hold
            self.environment.process_exit_code = summary["exit_code"]
        for line in loadsummary.table(summary):
            log.info(line)


def install(environment: Environment, plan: Plan | None, out: Path | None) -> Conductor:
    """Hook a conductor into an environment whose runner exists."""
    conductor = Conductor(environment, plan, out)
    locust.runners.WORKER_REPORT_INTERVAL = REPORT_S
    hooks: Any = environment.events
    runner: Any = environment.runner
    hooks.test_start.add_listener(conductor.on_test_start)
    hooks.test_stop.add_listener(conductor.on_test_stop)
    hooks.quitting.add_listener(conductor.on_quitting)
    if isinstance(runner, WorkerRunner):
        # Locust works this out anew for each of its options whenever users come: 70 ms in which no token is read and no
        # heartbeat is sent, for want of which a busy host's workers were taken for lost.
        locust.argument_parser.default_args_dict = cache(locust.argument_parser.default_args_dict)
        runner.register_message(START, conductor.on_start_message)
        runner.register_message(STEER, conductor.on_steer_message)
        runner.register_message(STOP, conductor.on_stop_message)
        hooks.report_to_master.add_listener(conductor.on_report)
        _end_with_parent()
    else:
        hooks.worker_report.add_listener(conductor.on_worker_report)
    return conductor


def local_instant(wall_s: float) -> int:
    """Return an instant of the wall clock on this process's monotonic clock, ns."""
    return now_ns() + round((wall_s - time.time()) * 1e9)  # noqa: TID251


def _end_with_parent() -> None:
    """On a worker forked by `--processes`: end when the master is gone, however it went."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            gevent.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

    if parent > 1:
        gevent.spawn(watch)
