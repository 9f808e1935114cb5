"""Pages that go and come back: nothing is missed, nothing is asked twice, and nobody pays for an empty room."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from statistics import median

from tests.hostwatch import measurements
from tests.live import LiveApp
from tests.upstreams import Upstream, scripted_upstream
from tests.upstreams.wire import TEXT, TOKENS
from tests.web.conftest import AddBackend, OpenPage, asked, eventually
from tests.web.page import Page, cut, open_page, open_socket

SLOW_GAP_S = 0.04


async def come_back(app: LiveApp, page: Page, socket: Page, *, html: bool = False) -> None:
    """Attach `socket` as the page that lost `page` does: with what it holds."""
    socket.deltas = page.deltas
    await socket.attach(arena=page.arena, run=page.last("run")["run"], have=page.have, html=html)


async def test_a_page_that_lost_its_connection_misses_nothing_and_asks_nothing_twice(
    live_app: LiveApp, add_backend: AddBackend
) -> None:
    async with scripted_upstream(gap_s=SLOW_GAP_S) as slow:
        slugs = [await add_backend("ok", base_url=slow.url) for _ in range(2)]
        async with open_page(live_app, *slugs) as page:
            await page.send("run", prompt="Hello")
            for cut_after in (2, 5, 9):
                await eventually_deltas(page, cut_after)
                cut(page)
                again = Page(await open_socket(live_app.ws_url, live_app.url))
                await come_back(live_app, page, again)
                page = again
            run = await page.until("done")
            assert [page.text(lane) for lane in page.lanes] == [TEXT, TEXT]
            assert run["run"] == page.last("run")["run"]
            await page.socket.close()
        assert len(asked(slow)) == 2
        assert all(request.closed_ns is None or request.finished_ns for request in asked(slow))


async def eventually_deltas(page: Page, count: int) -> None:
    while any(len(page.deltas.get(lane, [])) < count for lane in page.lanes):
        await page.until("deltas")


async def test_an_answer_that_ended_while_the_page_was_away_is_told_when_it_is_back(
    upstream: Upstream, live_app: LiveApp, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("ok"), html=True) as page:
        await page.send("run", prompt="Hello")
        await page.until("state", state="streaming")
        cut(page)
        await eventually(lambda: asked(upstream)[0].finished_ns, "the answer ended")
        async with open_socket(live_app.ws_url, live_app.url) as socket:
            again = Page(socket)
            await come_back(live_app, page, again, html=True)
            await again.until("done")
            assert again.text(page.lanes[0]) == TEXT
            assert again.last("end")["outcome"] == "done"
            await again.fragment('class="verdict" data-state="final"')
    assert len(asked(upstream)) == 1


async def test_two_pages_of_one_arena_follow_the_same_run_and_either_stops_it(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("fault-u12")) as first, open_here() as second:
        await second.attach(arena=first.arena)
        assert second.lanes == first.lanes
        await first.send("run", prompt="Hello")
        for page in (first, second):
            while len(page.deltas.get(page.lanes[0], [])) < 3:
                await page.until("deltas")
        await second.send("stop")
        for page in (first, second):
            await page.until("done")
            assert page.text(page.lanes[0]) == "".join(TOKENS[:3])
            assert page.last("end")["outcome"] == "stopped"
    assert len(asked(upstream)) == 1


async def test_a_second_page_that_comes_late_sees_the_whole_answer(
    add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("ok"), await add_backend("ok-multi")) as first:
        run = await first.run()
        async with open_here() as second:
            assert (await second.attach(arena=first.arena))["run"] == run
            await second.until("done")
            assert second.deltas == first.deltas


async def test_closing_the_page_stops_its_run_at_once(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("fault-u12")) as page:
        await page.send("run", prompt="Hello")
        await page.until("state", state="streaming")
    await eventually(lambda: asked(upstream)[0].closed_ns, "upstream was closed", 1)


async def first_chat(upstream: Upstream) -> int:
    return next(place for place, request in enumerate(upstream.requests) if request.method == "POST")


async def test_a_page_of_two_that_closes_stops_nothing(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("ok-role-first")) as first:
        async with open_here() as second:
            await second.attach(arena=first.arena)
            await first.send("run", prompt="Hello")
            await second.until("state", state="prefill")
        await first.until("done")
        assert first.last("end")["outcome"] == "done"


async def test_a_lost_connection_leaves_the_run_going_for_a_while(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("ok-role-first")) as page:
        await page.send("run", prompt="Hello")
        await page.until("state", state="prefill")
        cut(page)
        request = await upstream.request(await first_chat(upstream))
        await eventually(lambda: request.finished_ns, "the answer was read to its end")
        assert [emission.text for emission in request.texts] == list(TOKENS)


async def test_going_to_another_arena_stops_the_run_nobody_follows_any_more(
    upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend("fault-u12")) as page:
        await page.send("run", prompt="Hello")
        await page.until("state", state="streaming")
        await page.attach("oci-llama-70b")
        await eventually(lambda: asked(upstream)[0].closed_ns, "upstream was closed", 1)


async def test_a_page_that_reads_nothing_does_not_slow_its_neighbour(
    upstream: Upstream, live_app: LiveApp, add_backend: AddBackend, open_here: OpenPage
) -> None:
    flood, steady = await add_backend("fault-u27"), await add_backend("ok")
    async with open_socket(live_app.ws_url, live_app.url, max_queue=1) as socket:
        stalled = Page(socket)
        await stalled.attach(flood)
        await stalled.send("run", prompt="Hello")
        async with open_here(steady) as page:
            await eventually(lambda: asked(upstream), "the flood was asked for")
            await eventually(lambda: asked(upstream)[0].finished_ns, "the flood was read though nobody looked")
            # The same gaps as written, to 2 ms in the middle, at least once: a busy machine is late by itself.
            for measurement in measurements():
                off_ms = [await off_in_the_middle_ms(page, upstream) for _ in range(5)]
                with measurement:
                    assert min(off_ms) < 2
        await stalled.until("done")
        assert stalled.text(stalled.lanes[0]) == " word" * 100_000


async def off_in_the_middle_ms(page: Page, upstream: Upstream) -> float:
    """Run, and return by how much the median gap between two texts changed on the way to the page."""
    before = len(asked(upstream))
    await page.run()
    assert len(asked(upstream)) == before + 1
    written = [emission.at_ns for emission in asked(upstream)[before].texts]
    arrived = [delta[0] * 1000 for delta in page.deltas[page.lanes[0]]]
    return abs(median(gaps_ms(arrived)) - median(gaps_ms(written)))


def gaps_ms(times_ns: list[int]) -> list[float]:
    return [(after - before) / 1e6 for before, after in pairwise(times_ns)]


async def test_an_arena_that_the_server_does_not_know_is_opened_afresh_and_says_so(open_here: OpenPage) -> None:
    async with open_here() as page:
        attached = await page.attach("oci-llama-70b", arena="gone-with-the-restart", run="an-old-run")
        assert attached["arena"] == "gone-with-the-restart"
        assert [lane["backend"] for lane in attached["lanes"]] == ["oci-llama-70b"]
        assert "restarted" in page.last("reset")["message"]


async def test_a_script_need_not_attach(upstream: Upstream, add_backend: AddBackend, open_here: OpenPage) -> None:
    slug = await add_backend()
    async with open_here() as page:
        await page.send("run", prompt="Hello", backend=slug)
        await page.until("done")
        assert [lane["label"] for lane in page.last("run")["lanes"]] == [f"Label of {slug}"]
        assert len(asked(upstream)) == 1


async def test_two_pages_that_come_back_to_a_restarted_server_at_once_share_one_arena_again(
    add_backend: AddBackend, open_here: OpenPage
) -> None:
    slug = await add_backend("ok")
    async with open_here() as first, open_here() as second:
        await asyncio.gather(*(page.attach(slug, arena="of-both-tabs") for page in (first, second)))
        assert first.lanes == second.lanes
        await first.send("run", prompt="Hello")
        await asyncio.gather(*(page.until("done") for page in (first, second)))
        assert first.deltas == second.deltas
