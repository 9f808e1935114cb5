"""Comparisons over the page's socket, with the live app: what is streamed, in which order, and what goes upstream."""

from __future__ import annotations

import asyncio

import pytest

from tests.hostwatch import measurements
from tests.live import LiveApp
from tests.upstreams import Upstream
from tests.upstreams.wire import REASONING, TEXT, TOKENS
from tests.web.conftest import AddBackend, OpenPage, asked, eventually


async def test_every_delta_of_every_lane_arrives_once_and_in_order(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    models = ["ok", "ok-reasoning", "ok-multi", "fault-u27"]
    async with open_here(*[await add_backend(model) for model in models]) as page:
        await page.run()
        assert [page.text(lane) for lane in page.lanes] == [TEXT, TEXT, TEXT, " word" * 100_000]
        assert page.text(page.lanes[1], "r") == REASONING
        assert len(page.deltas[page.lanes[0]]) == len(TOKENS)
        assert len(page.deltas[page.lanes[3]]) == 100_000
        for deltas in page.deltas.values():
            times = [delta[0] for delta in deltas]
            assert times == sorted(times)


async def test_a_lane_tells_its_states_before_the_text_they_begin_and_its_end_after_the_last(
    add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("ok-reasoning")) as page:
        await page.run()
        frames = [frame for frame in page.frames if frame["type"] in ("run", "state", "deltas", "end", "done")]
        words = [frame.get("state", frame["type"]) for frame in frames]
        once = [word for place, word in enumerate(words) if word not in words[:place]]
        assert once == ["run", "connecting", "prefill", "thinking", "deltas", "streaming", "done", "end"]
        last_text = max(place for place, word in enumerate(words) if word == "deltas")
        assert words.index("end") > last_text
        times = [frame["at_us"] for frame in frames if frame["type"] == "state"]
        assert times == sorted(times)
        assert times[0] >= 0


async def test_the_end_carries_the_figures_of_the_servers_own_count(
    add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend()) as page:
        await page.run()
        end = page.last("end")
        assert end["outcome"] == "done"
        assert end["error"] == ""
        figures = end["figures"]
        assert figures["output_tokens"] == len(TOKENS)
        first, last = page.deltas[page.lanes[0]][0][0], page.deltas[page.lanes[0]][-1][0]
        assert figures["tpot_ms"] == pytest.approx((last - first) / 1000 / (len(TOKENS) - 1), abs=0.01)
        assert figures["tok_s"] == pytest.approx(1000 / figures["tpot_ms"])
        assert 0 < figures["ttft_ms"] < figures["e2e_ms"]


async def test_a_failing_lane_ends_in_one_sentence_and_leaves_its_neighbour_alone(
    add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("fault-u13"), await add_backend("ok")) as page:
        await page.run()
        ends = {end["lane"]: end for end in page.all("end")}
        broken, good = (ends[lane] for lane in page.lanes)
        assert (broken["outcome"], good["outcome"]) == ("truncated", "done")
        assert broken["error"].endswith(".")
        assert page.text(page.lanes[0]) == "".join(TOKENS[:3])
        assert page.text(page.lanes[1]) == TEXT


async def test_a_repeated_key_starts_nothing_a_second_time(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend()) as page:
        for _ in range(5):
            await page.send("run", prompt="Hello", key="k1")
        await page.until("done")
        await page.send("run", prompt="Hello", key="k1")
        await page.run("Again", key="k2")
        assert len(asked(upstream)) == 2
        assert len(page.all("run")) == 2
        assert not page.all("error")


async def test_a_repeated_key_keeps_the_lanes_that_a_script_named(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    first, second = await add_backend("ok"), await add_backend("ok-multi")
    async with open_here(first) as page:
        for _ in range(3):
            await page.send("run", prompt="Hello", key="k1", backend=[first, second])
        run = (await page.until("done"))["run"]
        await page.send("run", prompt="Hello", key="k1", backend=[first, second])
        await page.send("attach", arena=page.arena)
        assert (await page.until("attached"))["run"] == run
        assert (await page.until("done"))["run"] == run
        assert len(asked(upstream)) == 2
        assert not page.all("error")


async def test_a_refused_click_can_be_repeated_with_its_key(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("fault-u12")) as page:
        await page.send("run", prompt="One", key="k1")
        await page.until("state", state="streaming")
        await page.send("run", prompt="Two", key="k2")
        assert "still running" in (await page.until("error"))["message"]
        await page.send("stop")
        await page.until("done")
        await page.send("run", prompt="Two", key="k2")
        await page.until("state", state="streaming")
        await page.send("stop")
        await page.until("done")
        assert [request.json["messages"][-1]["content"] for request in asked(upstream)] == ["One", "Two"]


async def test_stop_ends_all_lanes_keeps_their_text_and_closes_upstream_at_once(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("fault-u12"), await add_backend("fault-u12")) as page:
        await page.send("run", prompt="Hello")
        await eventually(lambda: [len(r.texts) for r in asked(upstream)] == [3, 3], "three tokens on both lanes")
        for lane in page.lanes:
            await page.until("state", state="streaming", lane=lane)
        await page.send("stop")
        await page.until("done")
        assert {end["outcome"] for end in page.all("end")} == {"stopped"}
        assert all(end["error"] == "" for end in page.all("end"))
        assert [page.text(lane) for lane in page.lanes] == ["".join(TOKENS[:3])] * 2
        for request in asked(upstream):
            await eventually(lambda request=request: request.closed_ns, "upstream was closed", 1)


async def test_one_lane_can_be_stopped_alone(upstream: Upstream, add_backend: AddBackend, open_here: OpenPage) -> None:
    async with open_here(await add_backend("fault-u12"), await add_backend("ok")) as page:
        await page.send("run", prompt="Hello")
        await page.until("state", lane=page.lanes[0], state="streaming")
        await page.send("stop", lane=page.lanes[0])
        await page.until("done")
        outcomes = {end["lane"]: end["outcome"] for end in page.all("end")}
        assert outcomes == {page.lanes[0]: "stopped", page.lanes[1]: "done"}


async def test_one_lane_can_run_again_alone(upstream: Upstream, add_backend: AddBackend, open_here: OpenPage) -> None:
    async with open_here(await add_backend("ok"), await add_backend("ok-multi")) as page:
        await page.run("Hello")
        await page.send("rerun", lane=page.lanes[1], key="again")
        await page.send("rerun", lane=page.lanes[1], key="again")
        again = await page.until("run")
        assert again["rerun"] is True
        assert [lane["lane"] for lane in again["lanes"]] == [page.lanes[1]]
        await page.until("done", run=again["run"])
        assert [request.model for request in asked(upstream)].count("ok-multi") == 2
        assert [request.model for request in asked(upstream)].count("ok") == 1
        messages = [request.json["messages"] for request in asked(upstream)]
        assert all(message == [{"role": "user", "content": "Hello"}] for message in messages)


async def test_the_next_prompt_carries_each_lanes_own_history(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("ok"), await add_backend("fault-u22")) as page:
        await page.run("First")
        answers = {request.model: page.text(lane) for lane, request in zip(page.lanes, asked(upstream), strict=True)}
        await page.run("Second", system="Be brief.")
        assert len(set(answers.values())) == 2
        for request in asked(upstream)[2:]:
            assert request.json["messages"] == [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "First"},
                {"role": "assistant", "content": answers[request.model]},
                {"role": "user", "content": "Second"},
            ]
        await page.send("new")
        await page.run("Third")
        for request in asked(upstream)[4:]:
            assert request.json["messages"] == [{"role": "user", "content": "Third"}]


async def test_an_answer_that_failed_is_no_history(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("fault-u17")) as page:
        await page.run("First")
        await page.run("Second")
        assert asked(upstream)[1].json["messages"] == [{"role": "user", "content": "Second"}]


async def test_a_cold_prompt_begins_with_a_nonce_that_never_comes_twice(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend(), await add_backend()) as page:
        await page.run("Hello", cold="on", system="Be brief.")
        firsts = [request.json["messages"][0] for request in asked(upstream)]
        assert [first["role"] for first in firsts] == ["system", "system"]
        assert all(first["content"].startswith("Request ") for first in firsts)
        assert all(first["content"].endswith(" Be brief.") for first in firsts)
        assert firsts[0] != firsts[1]
        assert [request.method for request in upstream.requests] == ["POST", "POST"]


async def test_settings_reach_every_backend_and_what_is_empty_is_not_sent(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend()) as page:
        await page.run(max_tokens="400", temperature="", top_p="0.5", seed="2147483647", full_length="on")
        body = asked(upstream)[0].json
        assert (body["max_tokens"], body["top_p"], body["seed"], body["ignore_eos"]) == (400, 0.5, 2147483647, True)
        assert "temperature" not in body
        await page.run(temperature=0)
        body = asked(upstream)[1].json
        assert body["temperature"] == 0
        assert not {"max_tokens", "top_p", "seed", "ignore_eos"} & set(body)


async def test_parallel_lanes_leave_together(upstream: Upstream, add_backend: AddBackend, open_here: OpenPage) -> None:
    async with open_here(*[await add_backend("ok-role-first") for _ in range(4)]) as page:
        for measurement in measurements():
            run = await page.run()
            sent = [state["at_us"] for state in page.all("state", state="prefill", run=run)]
            assert len(sent) == 4
            arrivals = [request.arrival_ns for request in asked(upstream)[-4:]]
            firsts = [request.texts[0].at_ns for request in asked(upstream)[-4:]]
            with measurement:
                assert max(sent) - min(sent) < 50_000
                assert max(arrivals) < min(firsts)


async def test_sequential_lanes_run_one_after_the_other_each_from_its_own_start(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("ok"), await add_backend("ok-multi"), await add_backend("ok")) as page:
        await page.run(order="sequential")
        assert [request.model for request in asked(upstream)] == ["ok", "ok-multi", "ok"]
        for before, after in zip(asked(upstream), asked(upstream)[1:], strict=False):
            assert before.texts[-1].at_ns < after.arrival_ns
        for lane in page.lanes:
            assert page.all("state", lane=lane, state="connecting")[0]["at_us"] < 1000


async def test_stopping_a_sequential_run_leaves_the_later_lanes_unasked(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("fault-u12"), await add_backend("ok")) as page:
        await page.send("run", prompt="Hello", order="sequential")
        await page.until("state", state="streaming")
        await page.send("stop")
        await page.until("done")
        assert [end["outcome"] for end in page.all("end")] == ["stopped", "stopped"]
        assert [request.model for request in asked(upstream)] == ["fault-u12"]


async def test_a_stop_right_behind_the_run_ends_it_with_or_without_a_request(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("fault-u10")) as page:
        for attempt in range(20):
            await page.send("run", prompt="Hello", cold="on" if attempt % 2 else "")
            await asyncio.sleep(attempt / 4000)
            await page.send("stop")
            await page.until("done")
        assert {end["outcome"] for end in page.all("end")} <= {"stopped"}


async def test_the_verdict_names_the_winner_when_all_have_ended(add_backend: AddBackend, open_here: OpenPage) -> None:
    quick, late = await add_backend("ok"), await add_backend("ok-role-first")
    async with open_here(quick, late, html=True) as page:
        await page.send("run", prompt="Hello")
        fragment = await page.fragment('id="verdict" class="verdict" data-state="final"')
        assert 'data-letter="A"' in fragment
        assert "A finished" in fragment
        assert "sooner" in fragment


async def test_an_empty_answer_wins_nothing(add_backend: AddBackend, open_here: OpenPage) -> None:
    async with open_here(await add_backend("ok-zero"), await add_backend("ok"), html=True) as page:
        await page.send("run", prompt="Hello")
        fragment = await page.fragment('data-state="final"')
        assert "A finished" not in fragment
        assert "B finished" in fragment


async def test_a_script_gets_json_only_and_a_page_its_readouts_too(
    add_backend: AddBackend, open_here: OpenPage
) -> None:
    slug = await add_backend("ok-role-first")
    async with open_here(slug) as script:
        await script.run()
        assert not script.fragments
    async with open_here(slug, html=True) as page:
        await page.run()
        lane = page.lanes[0]
        assert any(f'id="readout-{lane}"' in fragment for fragment in page.fragments)
        assert any(f'id="answer-{lane}"' in fragment and "data-final" in fragment for fragment in page.fragments)


async def test_a_lane_of_the_simulator_streams_its_prepared_answer(live_app: LiveApp, open_here: OpenPage) -> None:
    async with open_here("wse3-llama-70b", "b200-gpt-oss-120b") as page:
        await page.run("Explain why latency matters to a voice assistant.", max_tokens="60", full_length="on")
        assert [end["figures"]["output_tokens"] for end in page.all("end")] == [60, 60]
        assert {lane["badge"] for lane in page.last("run")["lanes"]} == {"SIMULATED"}
