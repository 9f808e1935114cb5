"""The figures that four lanes show in a browser, held against the simulator's own clock."""

from __future__ import annotations

from tests.browser.stage import FAST, SLOW, THINKING, LaneView, Stage
from tests.stamps import KEYS, RUNS, TOKENS, Lateness, Reported, check

LANES = (FAST, THINKING, "b200-gpt-oss-120b", SLOW)


async def shown(lane: LaneView, key: str) -> Reported | None:
    text = await lane.figure(key)
    if text == "n/a":
        return None
    digits, unit_ms = text.rstrip("ms"), 1 if text.endswith("ms") else 1000
    decimals = len(digits.partition(".")[2])
    return Reported(float(digits) * unit_ms, unit_ms * 10**-decimals * 0.501)


async def test_what_four_lanes_show_agrees_with_the_simulators_own_clock(stage: Stage) -> None:
    await stage.open(*LANES, max_tokens=TOKENS)
    agreed: set[tuple[int, str]] = set()
    wanted = {(place, key) for place in range(len(LANES)) for key in KEYS}
    for _ in range(RUNS):
        async with Lateness() as late:
            await stage.race()
        for place, lane in enumerate((await stage.record())["lanes"]):
            figures = {key: await shown(stage.lane(place), key) for key in KEYS}
            agreed |= {(place, key) for key in check(lane, figures, late.ms)}
        if agreed == wanted:
            break
        await stage.page.get_by_role("button", name="New conversation").click()
    assert agreed == wanted
