"""The parameters of a load run: one validated value, read from one file, by whoever starts a run and again by the
process that runs it. What a page or a command line asked for in plain words has been worked out before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from math import isfinite
from typing import Any
from urllib.parse import urlsplit

from webapp.core import arrivals, mixes, slo
from webapp.core.arrivals import Schedule, value_at
from webapp.core.loadstats import NS_PER_S, Window
from webapp.core.mixes import Mix
from webapp.core.slo import Slo

KINDS = ("run", "search", "sweep", "ab")
SERIES = ("search", "sweep")  # several runs, one after the other and of one backend each
MOST_LOADS = 16  # of a sweep
WIRES = ("sse", "ws", "direct")
MODES = ("users", "rate", "pairs")
DETAILS = ("marks", "chunks", "text")


@dataclass(frozen=True, slots=True)
class Caps:
    """What no run may exceed, over all its backends together; of a search or a sweep, each of its runs."""

    users: int = 1_000
    rate: float = 500.0
    duration_s: float = 3_600.0
    requests: int = 200_000
    workers: int = 16


CAPS = Caps()


@dataclass(frozen=True, slots=True)
class Target:
    """Where one backend's requests go. `url` is the API's base URL, for wire "ws" the page's socket.

    `key` names the environment variable that holds a bearer token, "" for none; the token itself is in no file.
    `slug` is the key in the results; `model` what a request asks for. `metrics_url` is where the server behind it all
    may publish what it does, in Prometheus' text, and `metrics_model` its own name there; "" is not known.
    """

    slug: str
    url: str
    model: str
    label: str = ""
    badge: str = ""
    key: str = ""
    metrics_url: str = ""
    metrics_model: str = ""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What synthetic users do besides asking. Zero: they do not.

    `patience_s` is the mean of an exponential patience with the first token, `read_bytes_per_s` the pace of a slow
    reader, `reconnect_s` after how long every WebSocket is thrown away at once, `think_s` the mean pause.
    """

    think_s: float = 0.0
    patience_s: float = 0.0
    read_bytes_per_s: float = 0.0
    reconnect_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. In mode "users" and "pairs", `users` closed loops run on each backend, or as many as `stages` say:
    (seconds, users) points joined by straight lines. "rate" follows `schedule` on each backend. In "pairs" every
    question goes to all backends at the same instant.

    `kind` says what it is to find out. Two of KINDS are a series of such runs: a search tries from `users` to `up_to`
    users, a sweep goes through `loads` (users, or requests per second in mode "rate"); `step` is one of its runs.
    """

    targets: tuple[Target, ...]
    kind: str = "run"
    wire: str = "sse"
    mode: str = "users"
    users: int = 1
    up_to: int = 256
    loads: tuple[float, ...] = ()
    stages: tuple[tuple[float, float], ...] = ()
    schedule: Schedule = field(default_factory=Schedule)
    behaviour: Behaviour = field(default_factory=Behaviour)
    duration_s: float = 30.0
    warmup_s: float = 3.0
    cooldown_s: float = 1.5
    grace_s: float = 30.0
    ramp_s: float = 0.0
    mix: str = "chat"
    turns: int = 1
    prompts: tuple[mixes.Question, ...] = ()
    slo: str = ""
    workers: int = 1
    seed: int = 0
    detail: str = "chunks"
    max_requests: int = CAPS.requests
    caps: Caps = CAPS

    @property
    def window(self) -> Window:
        return Window(round(self.warmup_s * NS_PER_S), round((self.duration_s - self.cooldown_s) * NS_PER_S))

    def users_at(self, at_s: float) -> int:
        """Return how many users are meant to run on each backend at a time after the start."""
        return round(value_at(self.stages, at_s)) if self.stages else self.users

    @property
    def most_users(self) -> int:
        """The largest number of users on each backend."""
        return max([self.users, *(round(users) for _, users in self.stages)])

    @property
    def slugs(self) -> list[str]:
        return [target.slug for target in self.targets]

    @property
    def is_series(self) -> bool:
        return self.kind in SERIES

    @property
    def is_paired(self) -> bool:
        """Whether every question goes to all backends at the same instant, to be compared pair by pair."""
        return len(self.targets) > 1 and self.mode != "users"

    def step(self, target: Target, load: float) -> Plan:
        """Return the run of one backend at one load that is a part of this series."""
        alone = replace(self, kind="run", targets=(target,), loads=())
        if self.mode != "rate":
            return replace(alone, users=round(load))
        return replace(alone, schedule=arrivals.flat(self.schedule.kind, load, self.schedule.cv))

    def questions(self) -> Mix:
        """Return the mix: the prompts that came along (a file's, a scenario's), else the named distribution."""
        if self.prompts:
            in_order = self.mix.startswith("scenario:")
            turns = len(self.prompts) if in_order else 1
            return Mix(self.mix, turns=turns, fixed=self.prompts, in_order=in_order)
        return mixes.parse(self.mix, turns=self.turns)

    def limits(self) -> Slo:
        return slo.parse(self.slo)

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    def checked(self) -> Plan:
        """Return the plan itself; raise ValueError with one sentence where it cannot or may not be run."""
        if not _finite(self.as_data()):
            raise ValueError("Every number has to be finite.")
        for wrong, sentence in self._faults():
            if wrong:
                raise ValueError(sentence)
        for load in self.loads:
            self.step(self.targets[0], load).checked()
        self.limits()
        if not self.prompts:
            mixes.parse(self.mix, turns=self.turns)
        return self

    def _faults(self) -> list[tuple[bool, str]]:
        count, caps, most = len(self.targets), self.caps, self.schedule.most()
        at_once = 1 if self.is_series else count  # backends that are loaded at the same time
        expected = (most * self.duration_s + sum(n for _, n in self.schedule.spikes)) * at_once
        closed = self.mode != "rate"
        return [
            (not count, "A load run needs a backend."),
            (count > 8, "At most eight backends in one run."),
            (len(set(self.slugs)) < count, "Each backend can be named once; compare one with itself by `load ab`."),
            (not all(map(_usable, self.targets)), "Every target has to be an http, https, ws or wss URL."),
            (self.kind not in KINDS, f"There is no kind {self.kind!r}; there are {', '.join(KINDS)}."),
            (self.wire not in WIRES, f"There is no wire {self.wire!r}; there are {', '.join(WIRES)}."),
            (self.mode not in MODES, f"There is no mode {self.mode!r}; there are {', '.join(MODES)}."),
            (self.detail not in DETAILS, f"There is no detail {self.detail!r}; there are {', '.join(DETAILS)}."),
            (
                self.schedule.kind not in arrivals.KINDS,
                f"There is no arrival {self.schedule.kind!r}; {', '.join(arrivals.KINDS)}.",
            ),
            (not 0.05 <= self.schedule.cv <= 20, "The coefficient of variation has to lie between 0.05 and 20."),
            (not 0.5 <= self.duration_s <= caps.duration_s, f"A run lasts 0.5 to {caps.duration_s:g} seconds."),
            (
                min(self.warmup_s, self.cooldown_s, self.grace_s, self.ramp_s) < 0,
                "Warm-up, cool-down, grace and ramp cannot be negative.",
            ),
            (
                self.warmup_s + self.cooldown_s >= self.duration_s,
                "Warm-up and cool-down together have to be shorter than the run.",
            ),
            (min(_numbers(self.behaviour)) < 0, "Think time, patience and reading pace cannot be negative."),
            (
                min((number for point in self.stages for number in point), default=0) < 0
                or not self._stages_in_order(),
                "Stages are users at times, in the order of their times, none of them negative.",
            ),
            (bool(self.stages) and self.mode != "users", "Stages of users are for closed loops."),
            (
                closed and not 0 <= self.users <= self.most_users <= caps.users // max(1, at_once),
                f"At most {caps.users} users over all backends.",
            ),
            (not 1 <= self.workers <= caps.workers, f"From 1 to {caps.workers} workers."),
            (not 1 <= self.turns <= 100, "A conversation has 1 to 100 turns."),
            (not 1 <= self.max_requests <= caps.requests, f"A run has 1 to {caps.requests:,} requests."),
            (
                not closed and most * at_once > caps.rate,
                f"At most {caps.rate:g} requests per second over all backends.",
            ),
            (
                not closed and _most_at_once(self.schedule) * at_once > caps.users,
                f"A spike or a trace has at most {caps.users:,} requests within a second over all backends.",
            ),
            (
                not closed and expected > caps.requests,
                f"That would be {expected:,.0f} requests; a run has at most {caps.requests:,}.",
            ),
            (
                not closed and not most and not self.schedule.spikes and not self.schedule.trace,
                "An open loop needs a rate, a spike or a trace.",
            ),
            ((self.kind == "ab" or self.mode == "pairs") and count < 2, "A paired comparison needs two backends."),
            *self._faults_of_series(),
        ]

    def _faults_of_series(self) -> list[tuple[bool, str]]:
        search, sweep, most = self.kind == "search", self.kind == "sweep", self.caps.users
        steady = not (self.stages or self.schedule.spikes or self.schedule.trace)
        return [
            (self.is_series and not steady, "A search or a sweep has one steady load in each of its runs."),
            (search and not self.slo.strip(), "A search needs an SLO, such as voice or ttft:500 tpot:50."),
            (search and self.mode != "users", "A search moves a number of users; it has no rate."),
            (
                search and not 1 <= self.users <= self.up_to <= most,
                f"A search begins with 1 user or more and ends with {most} or fewer.",
            ),
            (sweep and not 1 <= len(self.loads) <= MOST_LOADS, f"A sweep has 1 to {MOST_LOADS} loads."),
            (len(set(self.loads)) < len(self.loads), "A sweep names each of its loads once."),
            (sweep and min(self.loads, default=1) <= 0, "Each load of a sweep has to be more than nothing."),
        ]

    def _stages_in_order(self) -> bool:
        return all(a_s <= b_s for (a_s, _), (b_s, _) in pairwise(self.stages))


def from_data(data: Mapping[str, Any]) -> Plan:
    """Return the checked plan that `Plan.as_data` described. Raises ValueError, KeyError or TypeError."""
    known = {entry.name for entry in fields(Plan)}
    if unknown := sorted(set(data) - known):
        raise ValueError(f"unknown parameter {unknown[0]!r}")
    values = dict(data)
    values["targets"] = tuple(Target(**entry) for entry in data["targets"])
    for name in ("stages", "loads"):
        values[name] = _tuples(data.get(name, ()))
    if "behaviour" in data:
        values["behaviour"] = Behaviour(**data["behaviour"])
    if "schedule" in data:
        parts = {name: _tuples(value) for name, value in data["schedule"].items()}
        values["schedule"] = Schedule(**parts)
    values["prompts"] = tuple(mixes.Question(**entry) for entry in data.get("prompts", ()))
    caps = Caps(**data["caps"]) if "caps" in data else CAPS
    # A file may lower the caps, never lift them.
    lowest = {entry.name: min(getattr(caps, entry.name), getattr(CAPS, entry.name)) for entry in fields(Caps)}
    values["caps"] = replace(CAPS, **lowest)
    return Plan(**values).checked()


def _most_at_once(schedule: Schedule) -> int:
    """Return the largest number of requests that spikes or a trace have within any second."""
    timed = sorted([(at_s, 1) for at_s, _, _ in schedule.trace] or schedule.spikes)
    most = begun = first = 0
    for at_s, count in timed:
        begun += count
        while at_s - timed[first][0] >= 1:
            begun -= timed[first][1]
            first += 1
        most = max(most, begun)
    return most


def _numbers(behaviour: Behaviour) -> list[float]:
    return [getattr(behaviour, entry.name) for entry in fields(behaviour)]


def _finite(value: Any) -> bool:
    """Whether there is neither a NaN nor an infinity anywhere in plain data."""
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or isfinite(value)


def _usable(target: Target) -> bool:
    addresses = [urlsplit(url) for url in (target.url, target.metrics_url) if url]
    return bool(target.url) and all(a.scheme in ("http", "https", "ws", "wss") and a.hostname for a in addresses)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
