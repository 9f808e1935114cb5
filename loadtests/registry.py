"""What one generator process knows: the plan, its running requests, and the statistics not yet handed on.

Locust's own statistics mix failures into percentiles and round to two digits, so ours are kept here. A worker's
registry is drained into the master's collector several times a second; alone, a process drains into itself.
"""

from __future__ import annotations

import os
import resource
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar
from weakref import WeakSet

import gevent  # type: ignore[import-untyped]
import orjson
from gevent.event import Event  # type: ignore[import-untyped]
from gevent.pool import Group  # type: ignore[import-untyped]

from loadtests.exchange import Exchange
from loadtests.live import Recent
from loadtests.websocket import STORM, Page
from webapp.clock import now_ns
from webapp.core.errors import StreamError
from webapp.core.generator import Watch
from webapp.core.loadplan import Plan
from webapp.core.loadstats import LoadStats

SWEEP_S = 0.05
LOOKS_AT_ONCE, ENDS_AT_ONCE = 64, 4  # about half a millisecond of work each
BREATH_S = 0.001  # a pause in which sockets are read; gevent's sleep(0) only lets other greenlets run
NS_PER_S = 1_000_000_000

T = TypeVar("T")


def gently(items: Iterable[T], at_once: int) -> Iterator[T]:
    """Yield items with a breath after every `at_once` of them: what arrives meanwhile is to be read in time."""
    for place, item in enumerate(items, 1):
        yield item
        if place % at_once == 0:
            gevent.sleep(BREATH_S)


def _share(total: int, worker: int, workers: int) -> int:
    """Return how many of `total` are one worker's: as equal as can be, and together no more than all."""
    return total // workers + (worker < total % workers)


class Registry:
    """One process's part of a run. `begin` at the run's start; `take` what is new."""

    def __init__(self, plan: Plan, worker: int = 0, workers: int = 1) -> None:
        self.plan = plan
        self.worker, self.workers = worker, workers
        self.mix = plan.questions()
        self.mix.question(plan.seed, 0)  # makes what all questions share, before anybody waits for it
        self.t0_ns = 0
        self.started = Event()
        self.schedule = plan.schedule
        self.steered = Event()  # one for each time that the schedule is changed
        self.stopping = False
        self.exhausted = False
        self.active: set[Exchange] = set()
        self.children = Group()  # requests that no user waits for
        self.pages: WeakSet[Page] = WeakSet()
        self.begun = 0
        self._most = _share(plan.max_requests, worker, workers)
        self._claimed = 0  # of those, by requests that are about to begin
        self._users: dict[str, int] = {}
        self._slo = plan.limits()
        self._ended: deque[tuple[Exchange, str, StreamError | None]] = deque()
        self._cpu_from: tuple[int, float] | None = None  # when the window began: ns of the clock, CPU time in s
        self._helpers: list[gevent.Greenlet] = []
        self._renew()

    def begin(self, t0_ns: int) -> None:
        """Start counting: the run's time zero is `t0_ns` of this process's clock."""
        self.t0_ns = t0_ns
        self._helpers = [gevent.spawn(self._sweep)]
        self.started.set()

    def stop(self) -> None:
        """Ask nothing more and end what runs; it is recorded as interrupted."""
        self.stopping = True
        self.children.kill(block=False)
        for exchange in list(self.active):
            exchange.cut("interrupted")

    def steer(self, at_s: float, rate: float) -> None:
        """Have the open loop go on at another rate per second from `at_s` after the run's start."""
        self.schedule = self.schedule.steered(at_s, rate)
        steered, self.steered = self.steered, Event()
        steered.set()

    def close(self) -> None:
        gevent.killall(self._helpers, block=False)

    # -- for users

    def next_user(self, slug: str) -> int:
        """Return a number for a new user of a backend, the same whichever worker it lives in."""
        count = self._users.get(slug, 0)
        self._users[slug] = count + 1
        return count * self.workers + self.worker

    @property
    def full(self) -> bool:
        """Whether not even a request that is due may begin: it was stopped, or this process's share has been asked."""
        return self.stopping or self.begun >= self._most

    @property
    def over(self) -> bool:
        """Whether no further request becomes due: full, the time is up, or a trace is at its end."""
        if self.full or self.exhausted:
            return True
        return self.started.is_set() and now_ns() - self.t0_ns >= self.plan.duration_s * NS_PER_S

    def claim(self, requests: int) -> bool:
        """Set aside some of this process's share for requests that leave together; False where fewer are left, and
        then no more are to come."""
        self.exhausted = self.exhausted or self.begun + self._claimed + requests > self._most
        if not self.exhausted:
            self._claimed += requests
        return not self.exhausted

    def started_one(self, exchange: Exchange) -> None:
        self.begun += 1
        self._claimed = max(0, self._claimed - 1)
        self.active.add(exchange)

    def ended_one(self, exchange: Exchange, outcome: str, error: StreamError | None = None) -> None:
        """Take a request that ended, once. It is counted a little later: many may end at the same instant, at which
        others wait to be read."""
        self.active.discard(exchange)
        self._ended.append((exchange, outcome, error))

    # -- for the collector

    def take(self) -> dict[str, Any]:
        """Return everything counted since the last call, as plain data, and how things stand."""
        for exchange in gently(list(self.active), LOOKS_AT_ONCE):
            if exchange in self.active:  # it may have ended meanwhile
                exchange.catch_up()
                self._news_of(exchange).look(exchange)
        while self._ended:
            self._count(*self._ended.popleft())
        running: dict[str, list[int]] = {slug: [0, 0] for slug in self.plan.slugs}
        for exchange in self.active:
            running.setdefault(exchange.job.target.slug, [0, 0])[exchange.marks.first_token is None] += 1
        taken = {
            "at_ns": now_ns() - self.t0_ns,
            "stats": self._stats.as_data(),
            "news": {slug: recent.as_data() for slug, recent in self._news.items()},
            "lines": self._lines,
            "running": running,
            "begun": self.begun,
            "over": self.over,
            "watch": Watch(self._lag, cpu=self._cpu()).as_data(),
            "pid": os.getpid(),
        }
        self._renew()
        return taken

    def _count(self, exchange: Exchange, outcome: str, error: StreamError | None) -> None:
        news = self._news_of(exchange)
        news.look(exchange)
        record = exchange.record(self.t0_ns, outcome, error, text=self.plan.detail == "text")
        self._stats.add(record)
        news.end(exchange, record)
        self._lines.append(orjson.dumps(record.as_data(self.plan.detail)))

    def _news_of(self, exchange: Exchange) -> Recent:
        return self._news.setdefault(exchange.job.target.slug, Recent())

    def _renew(self) -> None:
        self._stats = LoadStats(self.plan.window, self._slo)
        self._news: dict[str, Recent] = {}
        self._lines: list[bytes] = []
        self._lag = Watch().hub_lag

    # -- watching itself and the others

    def _cpu(self) -> float:
        """Return this process's share of a core since the window began, 0.0 outside it."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        at_ns, cpu_s = now_ns(), used.ru_utime + used.ru_stime
        if not self.plan.window.holds(at_ns - self.t0_ns) or not self.t0_ns:
            return 0.0
        if self._cpu_from is None:
            self._cpu_from = (at_ns, cpu_s)
        from_ns, from_s = self._cpu_from
        return (cpu_s - from_s) / ((at_ns - from_ns) / NS_PER_S) if at_ns - from_ns > NS_PER_S else 0.0

    def _sweep(self) -> None:
        """Measure what has arrived, end requests whose time is up, count those that ended, and see how late that comes,
        twenty times a second.

        A timer for each of these, or for each request, would wake the process more often than its tokens do.
        """
        every_ns = round(self.plan.behaviour.reconnect_s * NS_PER_S)
        storm_ns = self.t0_ns + every_ns
        while True:
            at_ns = self._slept()
            if every_ns and at_ns >= storm_ns:
                storm_ns += every_ns
                self._storm()
            for exchange in gently(list(self.active), LOOKS_AT_ONCE):
                exchange.catch_up()
                if exchange.socket is not None and not exchange.verdict and (why := exchange.expired(at_ns)):
                    exchange.cut(why)
            for _ in gently(range(len(self._ended)), ENDS_AT_ONCE):
                if self._ended:
                    self._count(*self._ended.popleft())

    def _slept(self) -> int:
        """Sleep, count by how much that was too long, and return what time it is."""
        before_ns = now_ns()
        gevent.sleep(SWEEP_S)
        at_ns = now_ns()
        if self.plan.window.holds(at_ns - self.t0_ns):
            self._lag.record(at_ns - before_ns - round(SWEEP_S * NS_PER_S))
        return at_ns

    def _storm(self) -> None:
        """Take every WebSocket away at once, in the middle of what it does."""
        for exchange in list(self.active):
            if isinstance(exchange.socket, Page):
                exchange.verdict = STORM
                exchange.socket.drop()
        for page in list(self.pages):
            page.drop()
