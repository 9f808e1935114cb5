"""Lanes, scenarios and conversations, changed through the socket; what every page of the arena is then sent."""

from __future__ import annotations

import asyncio

from tests.live import LiveApp
from tests.upstreams import Upstream
from tests.upstreams.wire import TEXT
from tests.web.conftest import AddBackend, OpenPage, asked, eventually
from tests.web.page import Page

FOUR = ("wse3-gpt-oss-120b", "b200-gpt-oss-120b", "h100x2-gpt-oss-120b", "h100x2-llama-70b")


async def lanes_of(page: Page) -> list[str]:
    """Ask again and return the backends of the lanes in their order."""
    attached = await page.attach(arena=page.arena)
    return [lane["backend"] for lane in attached["lanes"]]


async def test_a_new_arena_opens_with_the_four_that_compare_well(open_here: OpenPage) -> None:
    async with open_here() as page:
        await page.attach()
        assert tuple(await lanes_of(page)) == FOUR


async def test_lanes_are_added_moved_swapped_and_removed(open_here: OpenPage) -> None:
    async with open_here("oci-llama-70b", "gaudi3x8-llama-70b") as page:
        first, second = page.lanes
        await page.send("lane.add", backend="wse3-llama-70b")
        assert await lanes_of(page) == ["oci-llama-70b", "gaudi3x8-llama-70b", "wse3-llama-70b"]
        await page.send("lane.move", lane=page.lanes[2], by="-1")
        assert await lanes_of(page) == ["oci-llama-70b", "wse3-llama-70b", "gaudi3x8-llama-70b"]
        await page.send("lane.swap", lane=first, backend="mi300x8-llama-70b")
        assert await lanes_of(page) == ["mi300x8-llama-70b", "wse3-llama-70b", "gaudi3x8-llama-70b"]
        await page.send("lane.remove", lane=second)
        assert await lanes_of(page) == ["mi300x8-llama-70b", "wse3-llama-70b"]


async def test_a_lane_without_a_wish_takes_a_backend_that_is_not_there_yet(open_here: OpenPage) -> None:
    async with open_here("wse3-gpt-oss-120b") as page:
        await page.send("lane.add")
        lanes = await lanes_of(page)
        assert len(set(lanes)) == 2


async def test_a_ninth_lane_is_refused(open_here: OpenPage) -> None:
    async with open_here(*["oci-llama-70b"] * 8) as page:
        await page.send("lane.add")
        assert "room for 8 lanes" in (await page.until("error"))["message"]
        assert len(await lanes_of(page)) == 8


async def test_every_page_of_the_arena_is_sent_the_lanes_anew(open_here: OpenPage) -> None:
    async with open_here("oci-llama-70b", html=True) as first, open_here() as second:
        await second.attach(arena=first.arena, html=True)
        first.fragments.clear(), second.fragments.clear()
        await first.send("lane.add", backend="wse3-llama-70b")
        for page in (first, second):
            assert 'data-count="2"' in await page.fragment('id="lanes"')


async def test_a_lane_that_is_removed_while_it_streams_ends_alone(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("fault-u12"), await add_backend("ok")) as page:
        stalled, good = page.lanes
        await page.send("run", prompt="Hello")
        await page.until("state", lane=stalled, state="streaming")
        await page.send("lane.remove", lane=stalled)
        await page.until("done")
        assert page.text(good) == TEXT
        request = next(request for request in asked(upstream) if request.model == "fault-u12")
        await eventually(lambda: request.closed_ns, "its request was closed")


async def test_a_lane_that_is_swapped_while_it_streams_ends_and_the_next_run_asks_the_new_backend(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("fault-u12"), await add_backend("ok")) as page:
        await page.send("run", prompt="Hello")
        await page.until("state", lane=page.lanes[0], state="streaming")
        await page.send("lane.swap", lane=page.lanes[0], backend=await add_backend("ok-multi"))
        await page.until("done")
        await page.run("Again")
        assert [request.model for request in asked(upstream)][2:].count("ok-multi") == 1
        assert page.text(page.lanes[0]) == TEXT


async def test_moving_lanes_changes_the_letters_of_the_verdict(add_backend: AddBackend, open_here: OpenPage) -> None:
    async with open_here(await add_backend("ok"), await add_backend("ok-role-first"), html=True) as page:
        await page.run()
        await page.send("lane.move", lane=page.lanes[0], by="1")
        assert 'id="verdict"' in await page.fragment('data-letter="B">B finished')


async def test_a_scenario_fills_the_prompt_box_and_sends_nothing(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend(), html=True) as page:
        page.fragments.clear()
        await page.send("scenario", scenario="agent")
        box = await page.fragment('id="prompt-box"')
        assert 'value="agent"' in box
        assert "10 steps" in box
        page.fragments.clear()
        await page.send("scenario", scenario="")
        assert "10 steps" not in await page.fragment('id="prompt-box"')
        assert not upstream.requests


async def test_a_scenario_is_not_changed_under_a_running_comparison(
    add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("fault-u12")) as page:
        await page.send("run", prompt="Hello")
        await page.until("state", state="streaming")
        for action in ("scenario", "new"):
            await page.send(action)
            assert "still running" in (await page.until("error"))["message"]


async def test_the_agent_loop_takes_ten_steps_each_with_the_answer_of_the_one_before(
    upstream: Upstream, live_app: LiveApp, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend(), html=True) as page:
        await page.send("scenario", scenario="agent")
        await page.send("run", prompt="Step 1", scenario="agent", max_tokens="50")
        assert (await page.until("run"))["lanes"][0]["steps"] == 10
        run = (await page.until("done"))["run"]
        prompts = [request.json["messages"][-1]["content"] for request in asked(upstream)]
        assert [prompt.split(" of ")[0] for prompt in prompts] == [f"Step {number}" for number in range(1, 11)]
        assert all(TEXT in prompt for prompt in prompts[1:])
        assert not any("{previous}" in prompt for prompt in prompts)
        steps = {delta[3] for delta in page.deltas[page.lanes[0]]}
        assert steps == set(range(10))
        tools = page.all("state", state="tool")
        assert [state["step"] for state in tools] == list(range(1, 10))
        answers = next(fragment for fragment in page.fragments if "data-final" in fragment and "step-label" in fragment)
        assert answers.count('class="step"') == 10
        assert any('data-key="step"' in fragment and "10/10" in fragment for fragment in page.fragments)
        assert 'id="verdict"' in await page.fragment("finished the loop")
    path = f"/runs/{run}/record.json"
    await eventually(lambda: live_app.json(path)["lanes"], "the writer has written the row")
    record = (await asyncio.to_thread(live_app.json, path))["lanes"][0]
    assert record["steps"] == 10
    assert record["d"] == page.deltas[page.lanes[0]]
    await page_shows_steps(live_app, run)


async def page_shows_steps(app: LiveApp, run: str) -> None:
    shown = (await asyncio.to_thread(app.browser().get, f"/runs/{run}/")).text
    assert shown.count('class="step"') == 10


async def test_a_step_that_fails_ends_the_loop_there(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("fault-u17")) as page:
        await page.run("Step 1", scenario="agent")
        assert len(asked(upstream)) == 1
        assert page.last("end")["outcome"] == "error"


async def test_a_spoken_sentence_is_not_sent_before_it_was_spoken(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend()) as page:
        await page.send("run", prompt="x", scenario="translation")
        waiting = await page.until("state", state="waiting")
        assert waiting["at_us"] < 1_000_000
        assert not asked(upstream)
        await page.send("stop")
        await page.until("done")
        assert page.last("end")["outcome"] == "stopped"
        assert not asked(upstream)


async def test_voice_and_code_run_as_one_turn_with_their_own_settings(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend(), html=True) as page:
        for scenario, sign in (("voice", 'data-key="voice_budget"'), ("code", 'data-key="ttft"')):
            page.fragments.clear()
            await page.run("Say it", scenario=scenario, max_tokens="99")
            assert asked(upstream)[-1].json["max_tokens"] == 99
            assert any(sign in fragment for fragment in page.fragments)
        assert all(len(request.json["messages"]) == 1 for request in asked(upstream))
