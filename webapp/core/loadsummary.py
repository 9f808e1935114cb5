"""A load run's results as they are published: summary.json, and the few hundred points that its charts need.

Made by the generator when a run ends, and again from requests.jsonl where a run was killed before it could.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from webapp.core.generator import Watch
from webapp.core.histogram import Histogram
from webapp.core.loadplan import SERIES, Plan
from webapp.core.loadrecord import record_from_data
from webapp.core.loadstats import BackendStats, LoadStats, exit_code
from webapp.core.paired import Pairing
from webapp.core.servermetrics import ServerWatch

COMPLETE, STOPPED, INTERRUPTED = "complete", "stopped", "interrupted"
CHART_FIGURES = ("ttft", "tpot", "icl", "e2e")
# What stands in summary.json and does not explain itself; the file carries it along, the help page shows it.
DEFINITIONS = {
    "ttft_ms": "first text, thinking included − request sent",
    "ttfo_ms": "first text of the answer itself − request sent",
    "tpot_ms": "(last text − first text) ÷ (output tokens − tokens in the first chunk)",
    "icl_ms": "gaps between neighbouring chunks of text; a chunk may hold several tokens. "
    "A percentile is null where it falls among chunks that came in one read: how far apart they were sent is not known",
    "e2e_ms": "last text − request sent",
    "…_sched_ms": "the same from the time at which the request was meant to leave; TPOT and ICL have no start and stay",
    "left_ms": "how long users who left without an answer had waited, from when they meant to ask",
    "connect_ms": "opening a connection, which is in none of the figures above except the intended ones",
    "requests.overdue": "those of the interrupted that were past a limit of the SLO already",
    "requests.asked": "what the attainment is a share of: ok + failed + left + overdue",
    "attainment": "answers that met every limit of the SLO ÷ requests.asked, with Wilson's 95 % interval",
    "goodput_per_s": "answers that met every limit, per second of the measured window",
    "output_tokens_per_s": "tokens that arrived inside the measured window ÷ its length",
    "server": "what the server says of itself, other clients' requests included; null where it says nothing",
    "server.unread_tokens": "tokens that it produced during the run and nobody of the run received",
    "server.held_ms": "how long it went on, on average, with a request whose user had left",
    "server.most_late_ms": "by how much a simulator was behind its own schedule, at most: its host, not the model",
    "sweep[].figures": "a backend's whole block at that load; under `backends` stands that of its last load",
    "generator.hub_lag_ms": "overshoot of a sleep of 50 ms in the generator's own loop",
    "generator.send_late_ms": "from when a request was meant to leave to when the generator began with it",
}
BARS = 80
POINTS = 300


def summarise(
    plan: Plan,
    stats: LoadStats,
    watch: Watch,
    *,
    ended: str,
    elapsed_ns: int,
    started_at: float,
    t0_ns: int,
    versions: Mapping[str, str],
    servers: Mapping[str, ServerWatch] | None = None,
) -> dict[str, Any]:
    """Return summary.json. `elapsed_ns` is how long the run has lasted, `started_at` seconds of the wall clock,
    `servers` what the servers behind the backends have told of themselves.
    """
    window = plan.window
    measured_s = max(0, min(window.end, elapsed_ns) - window.start) / 1e9
    blocks = stats.summary(plan.slugs, measured_s)
    late, why = Histogram(), own_reasons(plan.slugs, stats, watch)
    for slug, block in blocks.items():
        backend = stats.backend(slug)
        late.merge(backend.histogram("late"))
        block["generator"] = _own(watch, backend).summary(why[slug])
        block["slo"] = stats.slo.text or None
        block["versions"] = dict(versions)
        watched = (servers or {}).get(slug, ServerWatch())
        block["server"] = watched.summary(backend.delivered_tokens, backend.gone, elapsed_ns / 1e9)
        block["warnings"] += [*_left_out(plan), *watched.warnings()]
    reasons = together(why)
    code = exit_code(stats, plan.slugs, bool(reasons))
    if ended == INTERRUPTED:
        code = code or 4  # who was killed has not passed
    return {
        "backends": blocks,
        "generator": Watch(watch.hub_lag, late, watch.cpu).summary(reasons),
        "slo": {"text": stats.slo.text, "name": stats.slo.name, "target": stats.slo.target} if stats.slo else None,
        "definitions": DEFINITIONS,
        "versions": dict(versions),
        "plan": described(plan),
        "started_at": started_at,
        "clock": {"t0_ns": t0_ns},
        "duration_s": round(min(plan.duration_s, elapsed_ns / 1e9), 3),
        "measured_s": round(measured_s, 3),
        "ended": ended,
        "exit_code": code,
    }


def _left_out(plan: Plan) -> list[str]:
    """Return in a sentence what of a trace was no part of the run, [] for nothing."""
    late, count = plan.schedule.beyond(plan.duration_s), len(plan.schedule.trace)
    return [f"{late:,} of the trace's {count:,} arrivals lie beyond the run's {plan.duration_s:g} s."] if late else []


def own_reasons(slugs: Sequence[str], stats: LoadStats, watch: Watch) -> dict[str, list[str]]:
    """Return for each backend why the latencies seen on it are the generator's own, [] where they are not."""
    backends = {slug: stats.backend(slug) for slug in slugs}
    return {
        slug: _own(watch, backend).reasons(backend.histogram("ttft"), backend.histogram("icl"))
        for slug, backend in backends.items()
    }


def _own(watch: Watch, backend: BackendStats) -> Watch:
    """Return what the generator saw of itself, of one backend's requests alone where it is about requests."""
    return Watch(watch.hub_lag, backend.histogram("late"), watch.cpu)


def together(reasons: Mapping[str, Sequence[str]]) -> list[str]:
    """Return every reason once, with its backend where it is not all of theirs."""
    shared = [reason for reason in next(iter(reasons.values()), []) if all(reason in each for each in reasons.values())]
    own = [f"{slug}: {reason}" for slug, each in reasons.items() for reason in each if reason not in shared]
    return shared + own


def rebuilt(
    plan: Plan, lines: Iterable[Mapping[str, Any]], start: Mapping[str, Any]
) -> tuple[dict[str, Any], LoadStats]:
    """Return the summary of a run that was killed, from what it had written: its records, and at its `start` the
    `versions`, `started_at` and `t0_ns` of `summarise`.

    What the generator saw of itself is lost with it, so its verdict is about the lateness of requests only.
    """
    stats = LoadStats(plan.window, plan.limits())
    pairing = Pairing(plan.slugs) if plan.is_paired else None
    for line in lines:
        record = record_from_data(line)
        stats.add(record)
        if pairing is not None and plan.window.holds(record.intended):
            pairing.add(line)
    found = summarise(plan, stats, Watch(), ended=INTERRUPTED, elapsed_ns=stats.last, **start)
    if pairing is not None:
        found["pairs"] = pairing.verdicts()
    return found, stats


def described(plan: Plan) -> dict[str, Any]:
    """Return the plan as it is published: without the prompts' texts and the names of keys."""
    data = plan.as_data()
    data["prompts"] = len(plan.prompts)
    data["schedule"]["trace"] = len(plan.schedule.trace)
    data["targets"] = [{**target, "key": bool(target["key"])} for target in data["targets"]]
    return data


def load_words(plan: Mapping[str, Any]) -> str:
    """Say in words how a plan, as it is published, loads its backends."""
    each = " on each backend" if len(plan["targets"]) > 1 else ""
    if plan.get("kind") in SERIES:
        return series_words(plan, plan["loads"])
    paired = "paired, " if plan["mode"] == "rate" and plan.get("kind") == "ab" else ""
    if plan["mode"] == "rate":
        schedule = plan["schedule"]
        kinds = {"gamma": f"in bursts (cv {schedule['cv']:g})", "poisson": "at random", "constant": "evenly"}
        rate = (
            f"{span(rates(plan))} requests/s {kinds[schedule['kind']]}" if schedule["rates"] else "a trace or a spike"
        )
        return f"{paired}open loop: {rate}{each}"
    users = span([users for _, users in plan.get("stages", ())] or [plan["users"]])
    return f"{'paired: ' if plan['mode'] == 'pairs' else ''}{users} user{'' if users == '1' else 's'}{each}"


def series_words(plan: Mapping[str, Any], loads: Sequence[float]) -> str:
    """Say which loads a search or a sweep tries, or has tried."""
    unit = "requests/s" if plan["mode"] == "rate" else "users"
    tried = ", ".join(f"{load:g}" for load in loads) or f"{plan['users']} to {plan['up_to']}"
    return f"{tried} {unit}, one run after the other"


def step_words(mode: str, load: float) -> str:
    """Say one load of a series in words: "1 user", "8 users", "2.5 requests/s"."""
    unit = "requests/s" if mode == "rate" else "user" if load == 1 else "users"
    return f"{load:g} {unit}"


def blocks(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield each set of figures that a result holds: whose, at which load in words ("" of a single run), and the block.

    A sweep has one for each backend and load; a search one for each backend, at the load that it has found.
    """
    mode = summary["plan"]["mode"]
    points = [point for point in summary.get("sweep", ()) if "figures" in point]
    for point in points:
        yield point["backend"], step_words(mode, point["load"]), point["figures"]
    if not points:
        at = figures_at(summary)
        yield from ((slug, at.get(slug, ""), block) for slug, block in summary["backends"].items())


def figures_at(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return in words at which load the figures under `backends` were measured, {} for a single run."""
    mode = summary["plan"]["mode"]
    found = {point["backend"]: step_words(mode, point["load"]) for point in summary.get("sweep", ())}
    for slug, entry in summary.get("search", {}).items():
        found[slug] = step_words(mode, entry["users"] or entry["steps"][0]["load"])
    return found


def name_at(slug: str, load: str) -> str:
    """Return what one of `blocks` is called."""
    return f"{slug}, {load}" if load else slug


def rates(plan: Mapping[str, Any]) -> list[float]:
    """Return the rates that a published plan's schedule passes through, [0.0] for none."""
    return [rate for _, rate in plan.get("schedule", {}).get("rates", ())] or [0.0]


def span(values: Sequence[float]) -> str:
    """Return "low to high", or the one value that all are."""
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def chart_data(plan: Plan, stats: LoadStats, series: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the charts of a result need, the same few kilobytes for a thousand requests and for a million."""
    distribution = {
        slug: {figure: bars(stats.backend(slug).histogram(figure)) for figure in CHART_FIGURES} for slug in plan.slugs
    }
    return {"distribution": distribution, "series": list(thinned(series))}


def bars(histogram: Histogram, most: int = BARS) -> list[tuple[float, float, int]]:
    """Return (from ms, to ms, count), neighbouring buckets joined until there are at most `most`."""
    found = [(low / 1e6, high / 1e6, count) for low, high, count in histogram.bars()]
    while len(found) > most:
        pairs = [found[k : k + 2] for k in range(0, len(found), 2)]
        found = [(pair[0][0], pair[-1][1], sum(bar[2] for bar in pair)) for pair in pairs]
    return found


def thinned(series: Sequence[Mapping[str, Any]], most: int = POINTS) -> Sequence[Mapping[str, Any]]:
    """Return at most `most` lines, evenly chosen, the last one kept."""
    step = -(-len(series) // most) if series else 1
    return list(series[::-1][::step])[::-1]


def table(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield a result as aligned lines of text."""
    heads = ("ok", "failed", "TTFT p50", "p95", "TPOT p50", "p95", "tok/s", "req/s", "good")
    rows = [(name_at(slug, load), block) for slug, load, block in blocks(summary)]
    width = max(28, *(len(name) for name, _ in rows))
    yield f"{'backend, times in ms':{width}}" + "".join(f"{head:>10}" for head in heads)
    for name, block in rows:
        first, each, share = block["ttft_ms"], block["tpot_ms"], block["attainment"]
        figures = [first["p50"], first["p95"], each["p50"], each["p95"], block["output_tokens_per_s"]]
        counts = [str(block["requests"][count]) for count in ("ok", "failed")]
        cells = [*counts, *map(number, [*figures, block["requests_per_s"]]), "" if share is None else f"{share:.1%}"]
        yield f"{name:{width}}" + "".join(f"{cell:>10}" for cell in cells)
        for error in block["errors"][:3]:
            yield f"  {error['count']} × {error['kind']}: {error['message']}"
        if words := patience_words(block):
            yield f"  {words}"
        for warning in block["warnings"]:
            yield f"  ! {warning}"


def patience_words(block: Mapping[str, Any]) -> str:
    """Say who left a backend without an answer and what its server did for them, "" where nobody did."""
    left, server = block["requests"]["left"], block.get("server") or {}
    if not left:
        return ""
    after = f"{left} left without an answer, after {number(block['left_ms']['p50'])} ms (p50)"
    told = [
        (server.get("unread_tokens"), "produced {:.0f} tokens for nobody"),
        (server.get("held_ms"), "went on for {:.0f} ms"),
    ]
    said = " and ".join(words.format(value) for value, words in told if value is not None)
    return f"{after}; the server {said}." if said else f"{after}; what the server did then is not known."


def number(value: float | None) -> str:
    """Return a figure with about three digits, "n/a" for None."""
    if value is None:
        return "n/a"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
