"""From what a page or a command line asks for to a checked plan: backends looked up, targets allowed, blanks filled."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor, inf
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from webapp import queries
from webapp.backends import keys
from webapp.core import arrivals, loadplan, mixes
from webapp.core.arrivals import Schedule
from webapp.core.errors import StreamError
from webapp.core.loadplan import Behaviour, Plan, Target
from webapp.core.spec import BackendSpec
from webapp.services.scenarios import scenarios

DURATION_S = 30.0  # unless said otherwise, or by stages or a trace
WARMUP, COOLDOWN = 0.1, 0.05  # shares of a run that are cut, unless said otherwise
MAX_FILE_BYTES = 64 << 20
STAGE = re.compile(r"(?P<level>\d+(?:\.\d+)?):(?P<time>\d+(?:\.\d+)?)(?P<unit>s|m|h|)")
SECONDS_PER = {"": 1, "s": 1, "m": 60, "h": 3600}


class Refusal(ValueError):
    """A load run that is not started; its text is one sentence for whoever asked. `about` names what is wrong: a field
    of the page's form, "" for none.
    """

    def __init__(self, text: str, about: str = "") -> None:
        super().__init__(text)
        self.about = about


@dataclass(frozen=True, slots=True)
class Wishes:
    """A load run in the words of a form or a command line. None and "" mean the default.

    `users`, and the rates of an open loop, hold for each backend. `ramp` is "FROM:TO" requests per second over the
    run, `steps` "1,5,10", `spike` "COUNT@SECONDS", `trace` the text of a CSV file, `prompts` that of a file of prompts.
    `kind` is one of loadplan.KINDS: a search goes from `users` to `up_to`, a sweep through `loads`, the first of which
    is also `users` or `rate`. `stages` is "10:30s,50:1m": to 10 within 30 s, then to 50 within a minute; requests per
    second where `arrival` says how they arrive, else users. They replace the duration by their sum; a trace is a
    duration, too, where none is given.
    """

    backends: tuple[str, ...] = ()
    kind: str = "run"
    wire: str = "sse"
    users: int | None = None
    up_to: int = 256
    loads: tuple[float, ...] = ()
    rate: float | None = None
    arrival: str = ""
    cv: float = 2.0
    ramp: str = ""
    steps: str = ""
    stages: str = ""
    spike: str = ""
    trace: str = ""
    duration_s: float | None = None
    warmup_s: float | None = None
    cooldown_s: float | None = None
    grace_s: float = 30.0
    mix: str = "chat"
    prompts: str = ""
    turns: int = 1
    slo: str = ""
    workers: int = 1
    seed: int = 0
    think_s: float = 0.0
    patience_s: float = 0.0
    read_bytes_per_s: float = 0.0
    reconnect_s: float = 0.0
    max_requests: int = loadplan.CAPS.requests
    detail: str = "chunks"


@dataclass(frozen=True, slots=True)
class Where:
    """Where requests may go: the web app's address, and the simulator's API."""

    app_url: str
    simulator_url: str


def plan(wishes: Wishes, where: Where) -> tuple[Plan, dict[str, str]]:
    """Return the checked plan, and the keys that the generator needs by the names of its environment variables.

    Raises Refusal with one sentence.
    """
    try:
        _check(wishes)
        duration_s = _duration_s(wishes)
        specs = [_spec(slug) for slug in wishes.backends]
        targets, secrets = _targets(specs, wishes, where)
        schedule = _schedule(wishes, duration_s)
        prompts = _prompts(wishes)
        mode = "rate" if schedule is not None else "pairs" if wishes.kind == "ab" else "users"
        timed = schedule is not None and bool(schedule.spikes or schedule.trace)
        found = Plan(
            targets=targets,
            kind=wishes.kind,
            wire=wishes.wire,
            mode=mode,
            users=_users(wishes),
            up_to=wishes.up_to,
            loads=wishes.loads,
            stages=_stages(wishes) if mode == "users" else (),
            schedule=schedule or Schedule(),
            behaviour=Behaviour(wishes.think_s, wishes.patience_s, wishes.read_bytes_per_s, wishes.reconnect_s),
            duration_s=duration_s,
            warmup_s=_cut(wishes.warmup_s, 0.0 if timed else WARMUP, duration_s),
            cooldown_s=_cut(wishes.cooldown_s, 0.0 if timed else COOLDOWN, duration_s),
            grace_s=wishes.grace_s,
            ramp_s=min(duration_s * WARMUP, 30.0) if mode != "rate" and not wishes.stages else 0.0,
            mix=wishes.mix,
            turns=wishes.turns,
            prompts=prompts,
            slo=wishes.slo,
            workers=wishes.workers,
            seed=wishes.seed,
            detail=wishes.detail,
            max_requests=wishes.max_requests,
        )
        return found.checked(), secrets
    except Refusal:
        raise
    except (ValueError, StreamError) as error:
        raise Refusal(str(error)) from None


def allowed(url: str, where: Where) -> bool:
    """Whether load may be sent to a URL: this machine, the simulator, and the origins that LOAD_TARGETS names."""
    parts = urlsplit(url)
    listed = [where.simulator_url, where.app_url, settings.SIMULATOR_URL, *getattr(settings, "LOAD_TARGETS", ())]
    if any(_origin(url) == _origin(entry) for entry in listed):
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"


def _spec(slug: str) -> BackendSpec:
    row = queries.backend(slug)
    if row is None:
        raise Refusal(f"There is no backend {slug!r}; see: manage.py backend list", "backend")
    return queries.spec_of(row)


def _targets(specs: Sequence[BackendSpec], wishes: Wishes, where: Where) -> tuple[tuple[Target, ...], dict[str, str]]:
    targets, secrets, seen = [], {}, set()
    for place, spec in enumerate(specs):
        upstream = where.simulator_url if spec.base_url == settings.SIMULATOR_URL else spec.base_url
        if spec.kind != "recording" and not allowed(upstream, where):
            raise Refusal(
                f"{spec.slug} is at {urlsplit(upstream).netloc}, which may not be loaded; "
                "its operator can allow it by naming its origin in LOAD_TARGETS.",
                "backend",
            )
        name = ""
        if wishes.wire == "direct":
            if spec.kind != "openai":
                raise Refusal(f"{spec.slug} has no URL of its own; load it over the machine wire.", "wire")
            url, model = upstream, spec.model
            if spec.key_ref:
                name = f"SPLITSECOND_KEY_{place}"
                secrets[name] = keys.resolve(spec.key_ref)
        else:
            url, model = f"{where.app_url}/v1", spec.slug
            if wishes.wire == "ws":
                url = where.app_url.replace("http", "ws", 1) + "/ws/arena/"
        # The same backend twice is an A/A comparison: its twin needs a name of its own.
        slug = spec.slug if spec.slug not in seen else f"{spec.slug}#{place + 1}"
        seen.add(slug)
        metrics = f"{upstream.removesuffix('/v1')}/metrics" if spec.kind == "openai" else ""
        targets.append(Target(slug, url, model, spec.label, spec.badge, name, metrics, spec.model))
    return tuple(targets), secrets


def _check(wishes: Wishes) -> None:
    """Refuse what has no effect beside something else: recorded with the run, it would look as if it had had one."""
    closed = "--users" if wishes.users is not None else "--stages" if wishes.stages and not wishes.arrival else ""
    turns = wishes.turns > 1
    for wrong, sentence in (
        (wishes.spike and closed, f"--spike is for open loops, which have no users; leave it or {closed} out."),
        (wishes.spike and wishes.trace, "--spike adds nothing to a --trace, which says when each request leaves."),
        (wishes.read_bytes_per_s and wishes.wire == "ws", "--slow-readers read over --wire sse or direct, not ws."),
        (wishes.reconnect_s and wishes.wire != "ws", f"--reconnect needs --wire ws, not {wishes.wire}."),
        (wishes.prompts and turns, "--prompts are questions without a second turn; leave --turns out."),
        (wishes.mix.startswith("scenario:") and turns, "--mix scenario:… has its own turns; leave --turns out."),
    ):
        if wrong:
            raise Refusal(sentence)


def _duration_s(wishes: Wishes) -> float:
    if wishes.stages:
        return _stages(wishes)[-1][0]
    if wishes.duration_s is not None:
        return wishes.duration_s
    # What arrives at a run's end is no part of it, so a trace needs a little more than its length.
    return floor(arrivals.read_trace(wishes.trace)[-1][0]) + 1.0 if wishes.trace else DURATION_S


def _schedule(wishes: Wishes, duration_s: float) -> Schedule | None:
    """Return the open loop's schedule, None for closed loops."""
    kind, cv = wishes.arrival or "poisson", wishes.cv if wishes.arrival == "gamma" else 1.0
    if wishes.trace:
        return Schedule(kind, trace=arrivals.read_trace(wishes.trace))
    found = None
    if wishes.ramp:
        start, end = _numbers(wishes.ramp, ":", "--ramp wants FROM:TO requests per second, such as 1:50.", 2)
        found = arrivals.ramp(kind, start, end, duration_s, cv)
    elif wishes.steps:
        rates = _numbers(wishes.steps, ",", "--steps wants requests per second, such as 5,10,20.")
        found = arrivals.steps(kind, rates, duration_s, cv)
    elif wishes.stages and wishes.arrival:
        found = Schedule(kind, _stages(wishes), cv)
    elif wishes.rate is not None:
        found = arrivals.flat(kind, wishes.rate, cv)
    if wishes.spike:
        sentence = "--spike wants COUNT@SECONDS, such as 100@10."
        count, at_s = _numbers(wishes.spike, "@", sentence, 2)
        if count != int(count):
            raise Refusal(sentence)
        if at_s >= duration_s:
            raise Refusal(f"--spike {wishes.spike} lies beyond the run, which lasts {duration_s:g} s (--duration).")
        found = replace(found or Schedule(kind), spikes=((at_s, int(count)),))
    if found is None and wishes.arrival:
        raise Refusal("--arrival needs a --rate (or --ramp, --steps, --stages).")
    return found


def _users(wishes: Wishes) -> int:
    if wishes.stages:
        return 0
    return 1 if wishes.users is None else wishes.users


def _stages(wishes: Wishes) -> tuple[tuple[float, float], ...]:
    """Return "10:30s,50:1m" as points over time, from nothing at the start."""
    if not wishes.stages:
        return ()
    points = [(0.0, 0.0)]
    for stage in wishes.stages.split(","):
        form = STAGE.fullmatch(stage.strip())
        if form is None:
            raise Refusal(f"--stages wants LEVEL:SECONDS, such as 10:30s,50:1m; {stage[:20]!r} is none.")
        points.append((points[-1][0] + float(form["time"]) * SECONDS_PER[form["unit"]], float(form["level"])))
    return tuple(points)


def _prompts(wishes: Wishes) -> tuple[mixes.Question, ...]:
    if wishes.prompts:
        return mixes.from_file(wishes.prompts)
    if wishes.mix.startswith("scenario:"):
        return mixes.parse(wishes.mix, scenarios()).fixed
    return ()


def read_text(path: Path, what: str) -> str:
    """Return a file that the command line named. Raises Refusal."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise Refusal(f"The {what} {path} is larger than {MAX_FILE_BYTES >> 20} MiB.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Refusal(f"The {what} {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise Refusal(f"The {what} {path} is not text in UTF-8.") from None
    if not text.strip():
        raise Refusal(f"The {what} {path} is empty.")
    return text


def _numbers(text: str, separator: str, sentence: str, count: int = 0) -> list[float]:
    try:
        found = [float(part) for part in text.split(separator)]
    except ValueError:
        found = []
    if not found or (count and len(found) != count) or not all(0 <= value < inf for value in found):
        raise Refusal(sentence)
    return found


def _cut(asked_s: float | None, share: float, duration_s: float) -> float:
    return share * duration_s if asked_s is None else asked_s


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    return scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(scheme)
