"""`manage.py compare`: what it prints as JSON, and that its figures are right by the simulator's own clock."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from typing import Any

import orjson

from tests.live import Browser, LiveApp
from tests.stamps import KEYS, RUNS, TOKENS, Lateness, Reported, check
from tests.web.conftest import AddBackend

STOPPED_S = 0.5
LANES = ("wse3-llama-70b", "wse3-gpt-oss-120b", "b200-gpt-oss-120b", "h100x2-llama-70b")
EACH = 2
CONTRACT = (
    "ttft_ms",
    "ttfo_ms",
    "tpot_ms",
    "e2e_ms",
    "output_tokens",
    "tokens_source",
    "tok_s",
    "icl_ms",
    "text",
    "marks_ns",
)


async def compared(app: LiveApp, *rest: str) -> Any:
    lanes = [word for slug in LANES for word in ("--backend", slug)]
    prompt = ("--prompt", "How fast?", "--max-tokens", str(TOKENS), "--json")
    return orjson.loads(await asyncio.to_thread(app.manage, "compare", *lanes, *prompt, *rest))


async def test_its_figures_agree_with_the_simulators_own_clock(live_app: LiveApp) -> None:
    agreed: set[tuple[str, str]] = set()
    wanted = {(slug, key) for slug in LANES for key in KEYS}
    for _ in range(RUNS // EACH):
        async with Lateness() as late:
            runs = await compared(live_app, "--repeat", str(EACH))
        for lane in (lane for run in runs for lane in run["lanes"]):
            figures = {key: Reported(ms) if (ms := lane[f"{key}_ms"]) is not None else None for key in KEYS}
            agreed |= {(lane["backend"], key) for key in check(lane, figures, late.ms)}
        if agreed == wanted:
            break
    assert agreed == wanted


async def test_each_lane_brings_what_scripts_rely_on_and_how_far_off_it_is(live_app: LiveApp) -> None:
    run = await compared(live_app)
    assert run["id"]
    assert [lane["backend"] for lane in run["lanes"]] == list(LANES)
    for lane in run["lanes"]:
        assert not [name for name in CONTRACT if name not in lane]
        assert (lane["outcome"], lane["output_tokens"], lane["tokens_source"]) == ("done", TOKENS, "usage")
        stamps = lane["server_times"]["Cerebras"]["emitted"]
        true_ms = (stamps["last_ns"] - stamps["arrived_ns"]) / 1e6
        assert abs(lane["truth"]["e2e_off_ms"] - (lane["e2e_ms"] - true_ms)) < 1e-6


async def answering(app: LiveApp, slug: str) -> None:
    """Return once the simulator is in the middle of an answer of this model: its first token is on its way."""
    begun = None
    async with asyncio.timeout(60):
        while True:
            told = await asyncio.to_thread(Browser(app.sim_url).get, "/metrics.json")
            model = orjson.loads(told.body)["models"][slug]
            if not model["running"]:
                begun = None
            elif begun is None:
                begun = model["tokens"]
            elif model["tokens"] > begun + 3:
                return


async def test_a_simulator_whose_host_held_it_up_does_not_pass_for_a_slow_model(live_app: LiveApp) -> None:
    slow = "h100x2-llama-70b"
    words = ("--backend", slow, "--prompt", "How fast?", "--max-tokens", "200", "--json")
    comparing = asyncio.create_task(asyncio.to_thread(live_app.manage, "compare", *words))
    await answering(live_app, slow)
    os.kill(live_app.simulator.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(STOPPED_S)
    finally:
        os.kill(live_app.simulator.pid, signal.SIGCONT)
    run = orjson.loads(await comparing)
    lane = run["lanes"][0]
    late_ms = lane["truth"]["late_ms"]
    assert min(late_ms, lane["icl_ms"]["max"]) > STOPPED_S * 1000 * 0.8  # less one step, of 18 ms
    said = next(warning for warning in run["verdict"]["warnings"] if warning["short"] == "simulator late")
    assert f"A ran up to {late_ms:.0f} ms behind its schedule" in said["detail"]


async def test_as_text_an_estimated_rate_is_marked_as_in_the_page(live_app: LiveApp, add_backend: AddBackend) -> None:
    lanes = ("--backend", await add_backend("ok"), "--backend", await add_backend("ok-crlf"))  # no usage in the second
    printed = await asyncio.to_thread(live_app.manage, "compare", *lanes, "--prompt", "Hello")
    counted, estimated = printed.splitlines()[:2]
    assert "~" not in counted
    assert re.search(r" ~[\d.]+ tok/s .* ~\d+ tokens$", estimated)
