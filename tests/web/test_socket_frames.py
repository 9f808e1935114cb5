"""Hostile and broken frames, and who may connect at all."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.live import LiveApp
from tests.upstreams import Upstream
from tests.upstreams.wire import TEXT
from tests.web.conftest import AddBackend, OpenPage, asked
from tests.web.page import open_socket

BAD_FRAMES: dict[str, str | bytes] = {
    "binary": b"\x00\x01",
    "empty": "",
    "no JSON": "{",
    "HTML": "<script>alert(1)</script>",
    "a lone surrogate": '{"action": "\\ud800"',
    "deep": '{"action":' + "[" * 20_000 + "]" * 20_000 + "}",
    "deep objects": '{"a":' * 9_000 + "1" + "}" * 9_000,
    "a list": '[{"action": "run"}]',
    "a number": "1e999",
    "null": "null",
    "no action": "{}",
    "unknown action": '{"action": "destroy"}',
    "an action of another type": '{"action": {"run": 1}}',
}
REFUSED: dict[str, dict[str, Any]] = {
    "unknown lane to stop": {"action": "stop", "lane": "z9"},
    "unknown lane to remove": {"action": "lane.remove", "lane": "z9"},
    "unknown lane to move": {"action": "lane.move", "lane": "z9", "by": "1"},
    "unknown lane to swap": {"action": "lane.swap", "lane": "z9", "backend": "oci-llama-70b"},
    "unknown lane to run again": {"action": "rerun", "lane": "z9"},
    "a lane of another type": {"action": "stop", "lane": {"a": 1}},
    "unknown backend": {"action": "lane.add", "backend": "no-such-backend"},
    "unknown backend of a run": {"action": "run", "prompt": "x", "backend": ["oci-llama-70b", "no-such"]},
    "too many backends": {"action": "run", "prompt": "x", "backend": ["oci-llama-70b"] * 9},
    "unknown scenario": {"action": "scenario", "scenario": "../../etc/passwd"},
    "unknown scenario of a run": {"action": "run", "prompt": "x", "scenario": "none"},
    "no prompt": {"action": "run"},
    "empty prompt": {"action": "run", "prompt": "  "},
    "a prompt that is no text": {"action": "run", "prompt": {"a": 1}},
    "a long prompt": {"action": "run", "prompt": "x" * 40_001},
    "a prompt with NUL": {"action": "run", "prompt": "a\0b"},
    "a long system prompt": {"action": "run", "prompt": "x", "system": "y" * 10_001},
    "too many tokens": {"action": "run", "prompt": "x", "max_tokens": "1000000"},
    "no tokens": {"action": "run", "prompt": "x", "max_tokens": 0},
    "tokens that are no number": {"action": "run", "prompt": "x", "max_tokens": "many"},
    "a temperature that is no number": {"action": "run", "prompt": "x", "temperature": "nan"},
    "a hot temperature": {"action": "run", "prompt": "x", "temperature": "2.1"},
    "a large seed": {"action": "run", "prompt": "x", "seed": str(2**31)},
    "an unknown order": {"action": "run", "prompt": "x", "order": "random"},
}


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
async def test_a_bad_frame_is_answered_in_one_sentence_and_harms_nothing(
    frame: str | bytes, upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend()) as page:
        await page.socket.send(frame)
        message = (await page.until("error"))["message"]
        assert message.endswith(".")
        assert "Traceback" not in message
        await page.run()
        assert page.text(page.lanes[0]) == TEXT


@pytest.mark.parametrize("message", REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_done_is_refused_in_one_sentence_and_the_arena_stays_as_it_was(
    message: dict[str, Any], upstream: Upstream, add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend(), await add_backend("ok-multi")) as page:
        lanes = page.lanes
        await page.socket.send(orjson.dumps(message).decode())
        text = (await page.until("error"))["message"]
        assert text.endswith(".")
        assert "Traceback" not in text
        assert not asked(upstream)
        await page.attach(arena=page.arena)
        assert page.lanes == lanes
        await page.run()
        assert len(asked(upstream)) == 2


async def test_an_unknown_action_is_answered_with_those_that_there_are(open_here: OpenPage) -> None:
    async with open_here() as page:
        await page.socket.send('{"action": "destroy"}')
        unknown = (await page.until("error"))["message"]
        named = unknown.removeprefix("Unknown action; there are ").removesuffix(".").split(", ")
        assert {"run", "stop", "lane.add"} <= set(named)
        for action in named:
            await page.socket.send(orjson.dumps({"action": action, "lane": "z9"}).decode())
        await page.attach(arena=page.arena)
        assert [error["message"] for error in page.all("error")].count(unknown) == 1


async def test_too_many_bad_frames_close_the_socket_with_a_code_of_our_own(open_here: OpenPage) -> None:
    async with open_here() as page:
        for _ in range(25):
            await page.socket.send("{")
        with pytest.raises(ConnectionClosed) as closed:
            await page.until("never")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4008
        assert len(page.all("error")) == 20


async def test_bad_frames_fill_no_log(live_app: LiveApp, open_here: OpenPage) -> None:
    before = live_app.log.count("bad frame")
    async with open_here() as page:
        for _ in range(10):
            await page.socket.send("{")
        for _ in range(10):
            await page.until("error")
    assert live_app.log.count("bad frame") - before == 1


async def test_an_error_of_a_run_does_not_reach_the_neighbours_page(
    add_backend: AddBackend, open_here: OpenPage
) -> None:
    async with open_here(await add_backend()) as good, open_here() as bad:
        await bad.socket.send("{")
        await bad.until("error")
        await good.run()
        assert not good.all("error")


def own(app: LiveApp) -> str:
    return app.url.removeprefix("http://")


FOREIGN_ORIGINS = {
    "another site": "https://evil.example",
    "another port": "http://127.0.0.1:1",
    "no port": "http://127.0.0.1",
    "another scheme": "https://{host}",
    "another name for this host": "http://localhost:{port}",
    "null": "null",
    "a suffix": "http://{host}.evil.example",
    "a user": "http://{host}@evil.example",
    "a path": "http://{host}/",
    "capitals of another scheme": "HTTP://{host}",
    "a file": "file://",
    "two": "http://{host}, https://evil.example",
}


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS.values(), ids=FOREIGN_ORIGINS)
async def test_pages_of_other_origins_are_refused(origin: str, live_app: LiveApp) -> None:
    port = own(live_app).rpartition(":")[2]
    with pytest.raises(InvalidStatus) as refused:
        async with open_socket(live_app.ws_url, origin.format(host=own(live_app), port=port)):
            pass
    assert refused.value.response.status_code in (400, 403)  # 400: not even an origin


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "[::2]:80"])
async def test_a_host_that_is_not_ours_is_refused_even_with_a_matching_origin(host: str, live_app: LiveApp) -> None:
    # What a page gets after its name was pointed at this machine (DNS rebinding).
    address, port = own(live_app).split(":")
    with pytest.raises(InvalidStatus) as refused:
        async with open_socket(f"ws://{host}/ws/arena/", f"http://{host}", host=address, port=int(port)):
            pass
    assert refused.value.response.status_code == 403


async def test_scripts_connect_without_an_origin(live_app: LiveApp) -> None:
    async with open_socket(live_app.ws_url, None) as socket:
        await socket.send('{"action": "attach"}')
        assert b"attached" in (await socket.recv(decode=False))
