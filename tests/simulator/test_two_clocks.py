"""The same load on the wall clock, over sockets, and in virtual time: the same pace."""

import asyncio
from statistics import fmean

import aiohttp
import pytest
from aiohttp import web

from tests.simulator.examples import body, events, sims
from webapp.simulator.answers import load_book
from webapp.simulator.engine import Engine
from webapp.simulator.profile import load_all
from webapp.simulator.server import build_runner
from webapp.simulator.virtual import Arrival, run_virtual

STREAMS, TOKENS = 50, 100
SLUG = "h100x2-llama-70b"


async def test_virtual_and_wall_clock_agree_on_the_pace_of_50_streams_within_one_percent() -> None:
    profile = load_all()[SLUG]
    runner = build_runner({SLUG: profile}, load_book())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"http://{host}:{port}", connector=connector) as client:

        async def one() -> tuple[float, float]:
            asked = body(model=SLUG, stream=True, max_tokens=TOKENS, ignore_eos=True, seed=1)
            async with client.post("/v1/chat/completions", json=asked) as response:
                found = sims(events(await response.read()))
            due_ns = (found[-1]["due_us"] - found[0]["due_us"]) * 1000
            return due_ns / (TOKENS - 1), (found[-1]["sent_ns"] - found[0]["sent_ns"]) / (TOKENS - 1)

        tpots = await asyncio.gather(*(one() for _ in range(STREAMS)))
    await runner.cleanup()
    records = run_virtual(Engine(profile.serving), [Arrival(0, 2, TOKENS)] * STREAMS).records
    virtual_ns = fmean(record.tpot_ns or 0 for record in records)
    assert fmean(due for due, _ in tpots) == pytest.approx(virtual_ns, rel=0.01)
    assert fmean(sent for _, sent in tpots) == pytest.approx(virtual_ns, rel=0.01)
