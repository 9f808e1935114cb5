"""Figures of cost and delay: P1, P2, P3, P6 and the growth of cost with the number of streams."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median

from tests.bench.processes import Process
from tests.bench.streams import SSE, Page, Reader, Window, close_all, get_json, open_all, plan, until, watch
from tests.bench.table import Row, missing
from tests.bench.world import World

WARM_S = 1.0
LANES = 8
STEPS = (200, 400, 600, 800, 1000, 1250, 1500, 2000)
GROWTH = (1, 10, 100, 500)
GROWTH_RATE = 2000  # tokens per second of all streams together, so that only their number changes


async def cell(relay: Process, readers: Sequence[Reader], seconds: float) -> Window:
    """Open streams through one relay, warm up, measure, close."""
    await open_all(relay.port, readers)
    await watch(readers, relay.cpu_s, WARM_S)
    seen = await watch(readers, relay.cpu_s, seconds)
    await close_all(readers)
    return seen


async def settle(world: World) -> None:
    """Wait until the app has stored what it measured: the writer's work belongs to no figure."""

    async def idle() -> bool:
        health = await get_json(world.app.port, "/healthz")
        return not health["rows_waiting"] and not health["arenas_running"]

    await until(idle, 20)


async def p1(world: World) -> list[Row]:
    """CPU per token, 8 lanes × 2,000 tok/s: one page on our side, 8 streams on the others'."""
    cells: dict[str, list[Window]] = {}
    jobs = [name for name in ("ours", "page", "nginx", "bare") if name != "nginx" or world.nginx] * world.repeats
    random.shuffle(jobs)
    for name in jobs:
        if name in ("ours", "page"):
            relay: Process = world.app
            readers: list[Reader] = [Page(relay.port, ["fast"] * LANES, html=name == "page")]
        else:
            relay = world.relays()[name]
            readers = [SSE(relay.port, plan(2000)) for _ in range(LANES)]
        cells.setdefault(name, []).append(await cell(relay, readers, world.window_s))
        await settle(world)
    figure = "CPU per token, 8 lanes × 2,000 tok/s, page frames"
    rows = [_cost_row("P1", figure, cells, "ours", "nginx", 1.6, 1.2)]
    rows.append(_cost_row("P1b", "  against a bare asyncio relay", cells, "ours", "bare"))
    rows.append(_cost_row("P1h", "  with the read-outs that a browser gets too", cells, "page", "nginx"))
    return rows


def _cost_row(
    id: str,
    figure: str,
    cells: dict[str, list[Window]],
    ours: str,
    other: str,
    target: float | None = None,
    beyond: float | None = None,
) -> Row:
    if other not in cells:
        return missing(id, figure, f"n/a: no {other}")
    cost = {name: median(window.us_per_token for window in seen) for name, seen in cells.items()}
    rate = median(window.tokens / window.wall_s for window in cells[ours])
    return Row(
        id,
        figure,
        f"{cost[ours]:.1f} µs",
        f"{other} {cost[other]:.1f} µs",
        cost[ours] / cost[other],
        f"{cost[ours] / cost[other]:.2f}×",
        target,
        beyond,
        note=f"{rate:,.0f} of {LANES * 2000:,} tok/s arrived" if rate < 0.98 * LANES * 2000 else "",
        raw={name: [window.us_per_token for window in seen] for name, seen in cells.items()},
    )


async def p3(world: World) -> list[Row]:
    """Delay per token, 50 streams × 50 tok/s over SSE."""
    cells: dict[str, list[Window]] = {}
    relays = {**world.relays(), "direct": world.reference}
    jobs = list(relays) * world.repeats
    random.shuffle(jobs)
    for name in jobs:
        relay = relays[name]
        readers = [SSE(relay.port, plan(50)) for _ in range(50)]
        cells.setdefault(name, []).append(await cell(relay, readers, world.window_s))
        await settle(world)
    delay = {name: median(window.p50_us for window in seen) for name, seen in cells.items()}
    late = {name: median(window.p99_us for window in seen) for name, seen in cells.items()}
    cost = {name: median(window.us_per_token for window in seen) for name, seen in cells.items()}
    note = "p50/p99 µs and CPU µs per token: " + ", ".join(
        f"{name} {delay[name]:.0f}/{late[name]:.0f}, {cost[name]:.0f}" for name in sorted(delay)
    )
    figure = "delay per token p50, 50 streams × 50 tok/s, SSE"
    raw = {name: [(window.p50_us, window.p99_us) for window in seen] for name, seen in cells.items()}
    rows = []
    for id, other, limits in (("P3", "nginx", (2.0, 1.3)), ("P3b", "bare", (None, None))):
        if other not in delay:
            rows.append(missing(id, figure, f"n/a: no {other}"))
            continue
        ratio = delay["ours"] / delay[other]
        rows.append(
            Row(
                id,
                figure if other == "nginx" else "  against a bare asyncio relay",
                f"{delay['ours']:.0f} µs",
                f"{other} {delay[other]:.0f} µs",
                ratio,
                f"{ratio:.2f}×",
                *limits,
                note=note if other == "nginx" else "",
                raw=raw if other == "nginx" else {},
            )
        )
    return rows


async def p6(world: World) -> list[Row]:
    """How many streams of 10 tok/s one core carries with p99 ≤ 50 ms and every token delivered."""
    most: dict[str, tuple[int, Window]] = {}
    names = [name for name in ("nginx", "ours") if name in world.relays()]
    random.shuffle(names)
    for name in names:
        relay = world.relays()[name]
        readers: list[Reader] = []
        for count in STEPS[1::2] if world.quick else STEPS:
            new: list[Reader] = [SSE(relay.port, plan(10)) for _ in range(count - len(readers))]
            readers += new
            await open_all(relay.port, new)
            await watch(readers, relay.cpu_s, WARM_S)
            seen = await watch(readers, relay.cpu_s, world.window_s)
            if seen.p99_us > 50_000 or seen.tokens < 0.95 * count * 10 * seen.wall_s:
                break
            most[name] = count, seen
        await close_all(readers)
        await settle(world)
    count, seen = most.get("ours", (0, Window(0, 1, [], 0)))
    reference = f"nginx {most['nginx'][0]:,}" if "nginx" in most else "n/a: no nginx"
    note = ", ".join(
        f"{name}: at {streams:,} p99 {window.p99_us / 1000:.1f} ms, {window.cpu_s / window.wall_s:.0%} of a core"
        for name, (streams, window) in most.items()
    )
    figure = "open streams × 10 tok/s on one core, p99 ≤ 50 ms"
    return [Row("P6", figure, f"{count:,}", reference, count, f"{count:,}", 1000, 2000, more=True, note=note)]


async def growth(world: World) -> list[Row]:
    """Cost per token at one total rate, spread over 1 to 500 streams."""
    cost: dict[str, dict[int, list[float]]] = {}
    counts = (1, 100, 500) if world.quick else GROWTH
    names = [name for name in ("ours", "nginx") if name in world.relays()]
    jobs = [(name, count) for name in names for count in counts for _ in range(world.repeats)]
    random.shuffle(jobs)
    for name, count in jobs:
        relay = world.relays()[name]
        readers = [SSE(relay.port, plan(GROWTH_RATE / count)) for _ in range(count)]
        seen = await cell(relay, readers, world.window_s)
        cost.setdefault(name, {}).setdefault(count, []).append(seen.us_per_token)
        await settle(world)
    rows = []
    middle = {name: {count: median(seen) for count, seen in by.items()} for name, by in cost.items()}
    for name, by in middle.items():
        ratio = by[max(by)] / by[1]
        rows.append(
            Row(
                "G1" if name == "ours" else "G1n",
                "CPU per token, 2,000 tok/s over 500 streams" if name == "ours" else "  the same of nginx",
                f"{by[max(by)]:.1f} µs",
                f"1 stream {by[1]:.1f} µs",
                ratio,
                f"{ratio:.2f}×",
                1.15 if name == "ours" else None,
                note=", ".join(f"{count}: {by[count]:.1f} µs" for count in sorted(by)),
                raw={str(count): seen for count, seen in cost[name].items()},
            )
        )
    return rows
