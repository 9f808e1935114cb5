"""P7: what an open stream weighs."""

from __future__ import annotations

import asyncio

from tests.bench.processes import Process
from tests.bench.streams import SSE, Page, Reader, close_all, open_all, plan
from tests.bench.table import Row, missing
from tests.bench.world import World

STREAMS = 400
BEFORE = 20  # opened and closed first, so that code and pools that every stream shares are there already


async def p7(world: World) -> list[Row]:
    """Anonymous memory of a fresh relay with 400 open streams of 1 tok/s, less the same without, per stream."""
    figure = "memory per open stream, 400 streams of 1 tok/s, SSE"
    nginx = world.fresh_nginx()
    theirs = await weigh(nginx, "SSE") if nginx else None
    rows = []
    for wire in ("SSE", "page"):
        app = world.fresh_app()
        ours = await weigh(app, wire)
        app.end()
        name = figure if wire == "SSE" else "  the same, pages with one lane each"
        id = "P7" if wire == "SSE" else "P7p"
        if theirs is None:
            rows.append(missing(id, name, f"n/a: no nginx; ours {ours:.0f} KiB"))
            continue
        limits = (3.0, 1.0) if wire == "SSE" else (None, None)
        rows.append(
            Row(id, name, f"{ours:.0f} KiB", f"nginx {theirs:.0f} KiB", ours / theirs, f"{ours / theirs:.1f}×", *limits)
        )
    return rows


async def weigh(relay: Process, wire: str) -> float:
    """Return KiB per open stream."""

    def readers(count: int) -> list[Reader]:
        if wire == "page":
            return [Page(relay.port, ["idle"]) for _ in range(count)]
        return [SSE(relay.port, plan(1)) for _ in range(count)]

    first = readers(BEFORE)
    await open_all(relay.port, first)
    await close_all(first)
    await asyncio.sleep(1)
    before_kib = relay.anonymous_kib()
    streams = readers(STREAMS)
    await open_all(relay.port, streams)
    await asyncio.sleep(1)
    after_kib = relay.anonymous_kib()
    await close_all(streams)
    return (after_kib - before_kib) / STREAMS
