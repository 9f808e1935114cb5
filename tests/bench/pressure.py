"""Figures of what one reader does to the others: P4, P5 and the independence of lanes."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import orjson

from tests.bench.speed import WARM_S, settle
from tests.bench.streams import (
    SSE,
    Page,
    Reader,
    close_all,
    get_json,
    open_all,
    open_port,
    plan,
    quantile,
    watch,
)
from tests.bench.table import Row
from tests.bench.world import World

NEIGHBOURS = 20
CLOSES = 100
CLOSE_GAP_S = 0.03
TEXT_STAMP = re.compile(r"@(\d{19}) ")


async def p4(world: World) -> list[Row]:
    """One reader that never reads, on a stream without a limit; 20 neighbours at 50 tok/s before and during."""
    rows = []
    stall_s = 4.0 if world.quick else 8.0
    for wire in ("SSE", "page"):
        app = world.fresh_app()
        neighbours = [SSE(app.port, plan(50)) for _ in range(NEIGHBOURS)]
        await open_all(app.port, neighbours)
        await watch(neighbours, app.cpu_s, WARM_S)
        before = await watch(neighbours, app.cpu_s, world.window_s)
        before_kib = app.anonymous_kib()
        stalled: Reader = SSE(app.port, plan(0, tokens=2_000_000)) if wire == "SSE" else Page(app.port, ["unlimited"])
        await open_port(stalled, app.port)
        if wire == "SSE":
            stalled.stall()
        else:
            await stalled.begun.wait()
            stalled.stall()
        most_kib, delays = 0, []
        for _ in range(int(stall_s)):
            during = await watch(neighbours, app.cpu_s, 1.0)
            delays += during.delays_ns
            most_kib = max(most_kib, app.anonymous_kib())
        await close_all([*neighbours, stalled])
        app.end()
        during_us = quantile(sorted(delays), 0.5) / 1000
        late_us = quantile(sorted(delays), 0.99) / 1000
        mib = (most_kib - before_kib) / 1024
        ratio = during_us / before.p50_us
        what = "a machine client" if wire == "SSE" else "a page"
        rows += [
            Row(f"P4 {wire}", f"{what} that never reads: memory", f"{mib:.1f} MiB", "", mib, f"{mib:.1f} MiB", 8, 4),
            Row(
                f"P4 {wire}",
                "  neighbours' p50 during / before",
                f"{during_us:.0f} µs",
                f"before {before.p50_us:.0f} µs",
                ratio,
                f"{ratio:.2f}×",
                1.2,
                1.05,
                note=f"p99 {late_us / 1000:.1f} ms during, {before.p99_us / 1000:.1f} ms before",
            ),
        ]
    return rows


async def p5(world: World) -> list[Row]:
    """A viewer leaves: the time until the backend sees its connection closed."""
    rows = []
    for wire in ("SSE", "page"):
        app, gone = world.app, {}
        readers: list[Reader] = []
        for _ in range(CLOSES):
            reader: Reader = SSE(app.port, plan(1, spread=False)) if wire == "SSE" else Page(app.port, ["idle"])
            readers.append(reader)
        from_ns = time.monotonic_ns()
        for reader in readers:  # one after the other, so that the reference's log is in the same order
            await open_port(reader, app.port)
            await reader.begun.wait()
        order = list(enumerate(readers))
        random.shuffle(order)
        for place, reader in order:
            gone[place] = time.monotonic_ns()
            if isinstance(reader, Page):
                reader.leave()
            else:
                reader.close()
            await asyncio.sleep(CLOSE_GAP_S)
        await asyncio.sleep(0.5)
        log = await get_json(world.reference.port, "/log")
        streams = sorted((s for s in log["streams"] if s["arrival_ns"] >= from_ns), key=lambda s: s["arrival_ns"])
        delays = sorted(
            (stream["closed_ns"] - gone[place]) / 1e6 for place, stream in enumerate(streams) if stream["closed_ns"]
        )
        await settle(world)
        rows.append(_closed_row(wire, delays))
    return rows


def _closed_row(wire: str, delays_ms: Sequence[float]) -> Row:
    id, figure = f"P5 {wire}", f"viewer gone → upstream closed, p99 of {CLOSES}, {wire}"
    if len(delays_ms) < CLOSES:
        return Row(id, figure, f"{len(delays_ms)} of {CLOSES} closed", "", 1e9, "some never", 10, 2)
    p99 = quantile(delays_ms, 0.99)
    note = f"p50 {quantile(delays_ms, 0.5):.1f} ms, worst {delays_ms[-1]:.1f} ms, {len(delays_ms)} of {CLOSES} closed"
    return Row(id, figure, f"{p99:.1f} ms", "", p99, f"{p99:.1f} ms", 10, 2, note=note)


async def lanes(world: World) -> list[Row]:
    """A 2,000 tok/s lane and a stalled one beside a lane of 50 tok/s: what we measured of each, alone and together.

    The error of a chunk gap: the gap between two arrival times as the page is told them, less the gap between the two
    emission times that the reference stream wrote.
    """
    errors: dict[str, list[list[float]]] = {}
    jobs = [("slow",), ("fast",), ("slow", "fast", "stalled")] * world.repeats
    random.shuffle(jobs)
    for backends in jobs:
        page = Page(world.app.port, backends, keep=True)
        await open_all(world.app.port, [page])
        await asyncio.sleep(WARM_S + world.window_s)
        page.leave()
        await page.lost.wait()
        where = "alone" if len(backends) == 1 else "together"
        for lane, gaps in _gap_errors_us(page.frames).items():
            backend = backends[lane]
            errors.setdefault(f"{backend} {where}", []).append(gaps)
        await settle(world)
    rows = []
    for backend, rate in (("slow", "50"), ("fast", "2,000")):
        alone, together = (
            [median(quantile(run, share) for run in errors[f"{backend} {where}"]) for share in (0.5, 0.99)]
            for where in ("alone", "together")
        )
        rows.append(
            Row(
                f"L {backend}",
                f"error of a chunk gap, lane of {rate} tok/s beside others",
                f"{together[0]:.0f} µs",
                f"alone {alone[0]:.0f} µs",
                together[0] / alone[0],
                f"{together[0] / alone[0]:.2f}×",
                1.2,
                1.05,
                note=f"p99 {together[1]:.0f} µs, alone {alone[1]:.0f} µs",
            )
        )
    return rows


def _gap_errors_us(frames: Sequence[bytes]) -> dict[int, list[float]]:
    """Return, for each lane in order of its id, the sorted absolute errors of its chunk gaps in µs."""
    arrivals: dict[str, list[tuple[int, int]]] = {}
    for frame in frames:
        lanes: dict[str, Any] = orjson.loads(frame)["lanes"]
        for lane, part in lanes.items():
            for at_us, _, text, _ in part["d"]:
                if stamp := TEXT_STAMP.search(text):
                    arrivals.setdefault(lane, []).append((at_us, int(stamp[1]) // 1000))
    return {
        ord(lane[0]) - ord("a"): sorted(abs((b[0] - a[0]) - (b[1] - a[1])) for a, b in pairwise(seen))
        for lane, seen in arrivals.items()
    }
