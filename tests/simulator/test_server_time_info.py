"""Where an answer's time went, as its own last event says it."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from tests.simulator.examples import profile, sims, stream
from webapp.simulator.answers import load_book
from webapp.simulator.server import build_runner


async def test_time_info_repeats_the_stamps_of_the_first_and_the_last_text(client: aiohttp.ClientSession) -> None:
    found = await stream(client, model="bursty", stream_options={"include_usage": True})
    truths, arrived_ns = sims(found), found[0]["sim"]["arrived_ns"]
    stamps = found[-2]["time_info"]["emitted"]
    late_ns = max(truth["sent_ns"] - arrived_ns - truth["due_us"] * 1000 for truth in truths)
    assert stamps.pop("late_ns") == pytest.approx(late_ns, abs=1000)  # a due time is told in whole µs
    assert stamps == {
        "arrived_ns": arrived_ns,
        "first_ns": truths[0]["sent_ns"],
        "last_ns": truths[-1]["sent_ns"],
        "first_tokens": truths[0]["tokens"],
    }


async def test_time_info_agrees_with_the_due_times(client: aiohttp.ClientSession) -> None:
    found = await stream(client, stream_options={"include_usage": True})
    info, truths = found[-2]["time_info"], sims(found)
    assert info["total_time"] == pytest.approx(truths[-1]["due_us"] / 1e6, abs=1e-6)
    assert info["completion_time"] == pytest.approx((truths[-1]["due_us"] - truths[0]["due_us"]) / 1e6, abs=2e-6)
    assert info["queue_time"] == 0
    assert info["prompt_time"] == pytest.approx(0.0005)  # one pass, in which 4 tokens at 10,000 a second fit


@pytest.mark.parametrize("token_us", [0.0, 700.0])
async def test_the_parts_of_time_info_sum_to_the_time_that_passed(token_us: float) -> None:
    # Jitter, a front end (one that cannot keep up with the steps of 500 µs, too), one slot: the second request waits.
    crowded = profile(jitter_sigma=0.05, api_sigma=0.2, max_sequences=1, token_us=token_us)
    runner = build_runner({crowded.slug: crowded}, load_book())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as client:
        asking = [stream(client, stream_options={"include_usage": True}) for _ in range(2)]
        found = await asyncio.gather(*asking)
    await runner.cleanup()
    infos = [answer[-2]["time_info"] for answer in found]
    for info in infos:
        passed = info["api_time"] + info["queue_time"] + sum(info["parts"].values())
        assert passed == pytest.approx(info["total_time"], abs=1e-6)
        assert sum(info["parts"].values()) == pytest.approx(info["prompt_time"] + info["completion_time"], abs=1e-6)
    assert max(info["queue_time"] for info in infos) > 0.001
    assert all((info["parts"].get("hand_out", 0) > 0.001) == bool(token_us) for info in infos)
