"""The same load on the wall clock, over sockets, and in virtual time: the same pace."""

import asyncio
from statistics import fmean
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.simulator.examples import body, events, sims
from webapp.simulator.answers import load_book
from webapp.simulator.driver import api_ns, front_end
from webapp.simulator.engine import Engine
from webapp.simulator.profile import load_all
from webapp.simulator.server import build_runner
from webapp.simulator.text import estimate_tokens
from webapp.simulator.virtual import Arrival, run_virtual

STREAMS, TOKENS, SEED = 50, 100, 1
SLUG = "h100x2-llama-70b"


async def test_virtual_and_wall_clock_agree_on_the_pace_of_50_streams_within_one_percent() -> None:
    profile = load_all()[SLUG]
    runner = build_runner({SLUG: profile}, load_book())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"http://{host}:{port}", connector=connector) as client:

        async def one() -> list[Any]:
            asked = body(model=SLUG, stream=True, max_tokens=TOKENS, ignore_eos=True, seed=SEED)
            async with client.post("/v1/chat/completions", json=asked) as response:
                return events(await response.read())

        streams = await asyncio.gather(*(one() for _ in range(STREAMS)))
    await runner.cleanup()
    # The virtual clock is given the very arrivals that the host made of "at once".
    front = front_end(profile)
    before_ns = api_ns(profile, SEED) - front.request_ns
    reached_ns = [stream[0]["sim"]["arrived_ns"] + before_ns for stream in streams]
    arrivals = [Arrival(at_ns - min(reached_ns), estimate_tokens(len("hello")), TOKENS) for at_ns in reached_ns]
    records = run_virtual(Engine(profile.serving), arrivals, front=front).records
    virtual_ns = fmean(record.tpot_ns or 0 for record in records)
    truths = [sims(stream) for stream in streams]
    due_ns = fmean((truth[-1]["due_us"] - truth[0]["due_us"]) * 1000 / (TOKENS - 1) for truth in truths)
    assert due_ns == pytest.approx(virtual_ns, rel=0.01)
    # A busy host writes this token or that one late. What must not be is a lateness that stays: then the pace is off.
    for stream, truth in zip(streams, truths, strict=True):
        arrived_ns = stream[0]["sim"]["arrived_ns"]
        late_ns = min(sim["sent_ns"] - arrived_ns - sim["due_us"] * 1000 for sim in truth[-30:])
        assert late_ns < 0.01 * virtual_ns * TOKENS
