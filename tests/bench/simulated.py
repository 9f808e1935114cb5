"""The simulator's own speed: how well it keeps a pace, and how much faster than the clock it runs without one."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from tests.bench.processes import LOAD_CORE, RELAY_CORE, pin
from tests.bench.streams import quantile
from tests.bench.table import Row, missing
from tests.bench.world import World
from webapp.simulator import check
from webapp.simulator.check_profiles import write_profiles
from webapp.simulator.engine import Engine
from webapp.simulator.profile import load_all
from webapp.simulator.virtual import all_at_once, closed_loop, uniform_lengths

PACE = 2500
DUE_NS = 1_000_000_000 // PACE
TOKENS = 4000
USERS = 64
PROFILE_70B = "h100x2-llama-70b"

Span = tuple[float, float]


async def p9(world: World) -> list[Row]:
    """Return the error of the simulator's pace beside asyncio's timers, and the rate it holds at four loads."""
    with tempfile.TemporaryDirectory() as name, check.Served(write_profiles(Path(name))) as server:
        pin(server.pid, RELAY_CORE)  # not on ours, where the tokens are read
        ours, theirs, bare = [], [], []
        gaps, bare_gaps, watched_gaps = list[Span](), list[Span](), list[Span]()
        for _ in range(world.repeats):
            (trace,) = await check.read(server.port, f"check-{PACE}", 1, TOKENS)
            late = [sent - due for due, sent in zip(trace.due_ns, trace.sent_ns, strict=True)]
            ours.append(quantile(sorted(late), 0.99) / 1000)
            gaps.append(_span_us(trace.sent_ns))
            theirs.append(quantile(sorted(await _timers()), 0.99) / 1000)
            began_ns, woken_ns = _on_its_core(_sleep_until)
            bare.append(quantile(sorted(_late(began_ns, woken_ns)), 0.99) / 1000)
            bare_gaps.append(_span_us(woken_ns))
            watched_gaps.append(_span_us(_on_its_core(_watch_until)[1]))
        rows = [_pace_row(ours, theirs, bare), _gap_row(gaps, bare_gaps, watched_gaps)]
        for streams, tok_s in check.CELLS:
            traces = await check.read(server.port, f"check-{tok_s}", streams, int(tok_s * check.SECONDS))
            rows.append(_rate_row(check.row("simulator", traces, tok_s)))
    return [*rows, _memory_row(await check.waiting_bytes())]


def _pace_row(ours: list[float], theirs: list[float], bare: list[float]) -> Row:
    our_us, their_us = quantile(sorted(ours), 0.5), quantile(sorted(theirs), 0.5)
    return Row(
        "P9",
        f"simulator's pace error p99, one stream of {PACE:,} tok/s",
        f"{our_us:.0f} µs",
        f"asyncio {their_us:.0f} µs",
        our_us / their_us,
        f"{our_us / their_us:.2f}×",
        1 / 8,
        1 / 20,
        note=f"of that the host: a process that only sleeps on the same core is woken late by p99 "
        f"{quantile(sorted(bare), 0.5):.0f} µs",
        raw={"ours_us": ours, "asyncio_us": theirs, "bare_us": bare},
    )


def _span_us(at_ns: Sequence[int]) -> Span:
    """Return p1 and p99 of what lies between neighbouring instants."""
    apart_us = sorted((after - before) / 1000 for before, after in pairwise(at_ns))
    return quantile(apart_us, 0.01), quantile(apart_us, 0.99)


def _gap_row(gaps: Sequence[Span], bare: Sequence[Span], watched: Sequence[Span]) -> Row:
    """Return how far p1 and p99 of the gaps are from the pace's: the farther of both, as a share of it."""
    (low_us, high_us), (bare_low_us, bare_high_us), (watched_low_us, watched_high_us) = (
        tuple(quantile(sorted(side), 0.5) for side in zip(*spans, strict=True)) for spans in (gaps, bare, watched)
    )
    due_us = DUE_NS / 1000
    share = max(due_us - low_us, high_us - due_us) / due_us
    return Row(
        "P9g",
        f"  gaps between its tokens, {due_us:.0f} µs, p1 to p99",
        f"{low_us:.0f} to {high_us:.0f} µs",
        f"a sleeper {bare_low_us:.0f} to {bare_high_us:.0f} µs",
        share,
        f"{share:.1%} off",
        0.10,
        0.05,
        note=f"a process that does nothing but watch the clock, on the same core: {watched_low_us:.1f} to "
        f"{watched_high_us:.1f} µs",
        raw={"p1_p99_us": gaps, "sleeper_us": bare, "watcher_us": watched},
    )


def _rate_row(found: check.Row) -> Row:
    return Row(
        "P9r",
        f"  emitted rate against the profile's, {found.streams} × {found.tok_s:g} tok/s",
        f"{found.rate_error:+.2%}",
        "profile",
        abs(found.rate_error) * 100,
        f"{abs(found.rate_error):.2%}",
        1.0,
        note=f"late p50/p99 {found.sent_p50_ms:.2f}/{found.sent_p99_ms:.2f} ms",
    )


def _memory_row(waiting_bytes: float | None) -> Row:
    label = f"  memory of a waiting request of 8,000 tokens, {check.WAITING} at once"
    if waiting_bytes is None:
        return missing("P9m", label, "no /proc here")
    return Row(
        "P9m", label, f"{waiting_bytes / 1000:.1f} kB", "–", waiting_bytes / 1000, f"{waiting_bytes / 1000:.1f} kB", 20
    )


async def _timers() -> list[int]:
    """Return by how much asyncio.sleep to absolute deadlines of the same pace wakes late, ns."""
    began_ns, woken_ns = time.monotonic_ns(), []
    for place in range(TOKENS):
        await asyncio.sleep(max(0, began_ns + place * DUE_NS - time.monotonic_ns()) / 1e9)
        woken_ns.append(time.monotonic_ns())
    return _late(began_ns, woken_ns)


def _on_its_core(wait: Callable[[int], None]) -> tuple[int, list[int]]:
    """Keep the pace on the simulator's core, doing nothing else; return when it began and when each wait ended, ns."""
    os.sched_setaffinity(0, {RELAY_CORE})
    began_ns, ended_ns = time.monotonic_ns(), []
    for place in range(TOKENS):
        wait(began_ns + place * DUE_NS)
        ended_ns.append(time.monotonic_ns())
    os.sched_setaffinity(0, {LOAD_CORE})
    return began_ns, ended_ns


def _late(began_ns: int, at_ns: Sequence[int]) -> list[int]:
    return [one_ns - began_ns - place * DUE_NS for place, one_ns in enumerate(at_ns)]


def _sleep_until(due_ns: int) -> None:
    time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)


def _watch_until(due_ns: int) -> None:
    while time.monotonic_ns() < due_ns:
        pass


async def p13(world: World) -> list[Row]:
    """Return how many simulated seconds pass in one of the clock's, with 64 users of a 70B model."""
    profile = load_all()[PROFILE_70B]
    began_s = time.perf_counter()
    engine = Engine(profile.serving, seed=1)
    lengths = uniform_lengths(1000, 500, 0.8, seed=1)
    run = closed_loop(engine, all_at_once(USERS, lengths), lengths, requests=10 * USERS)
    spent_s = time.perf_counter() - began_s
    ratio = run.ends_ns / 1e9 / spent_s
    return [
        Row(
            "P13",
            f"simulator in virtual time, {USERS} users, {profile.label}",
            f"{run.ends_ns / 1e9:.0f} s in {spent_s:.2f} s",
            "wall clock",
            ratio,
            f"{ratio:,.0f}×",
            100,
            1000,
            more=True,
        )
    ]
