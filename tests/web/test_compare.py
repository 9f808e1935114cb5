"""`manage.py compare`: what it prints as JSON, and that its figures are right by the simulator's own clock."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from tests.live import LiveApp
from tests.stamps import KEYS, RUNS, TOKENS, Lateness, Reported, check

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
