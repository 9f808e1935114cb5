"""Answers over a real socket: what streams, when, and how it is counted."""

import asyncio
from statistics import median
from typing import Any

import aiohttp
import orjson
import pytest

from tests.hostwatch import measurements
from tests.simulator.examples import CHAT, PROFILES, TEXT, body, events, sims, stream, text_of
from webapp.simulator.answers import load_book
from webapp.simulator.text import split_tokens


async def test_it_says_what_it_serves(client: aiohttp.ClientSession) -> None:
    for path in ("/healthz", "/health"):
        async with client.get(path) as response:
            assert await response.json() == {"status": "ok", "profiles": list(PROFILES), "streams": 0}
    async with client.get("/v1/models") as response:
        listed = await response.json()
    assert [entry["id"] for entry in listed["data"]] == list(PROFILES)
    assert listed["data"][0]["sim"]["source"] == "this test"
    async with client.get("/v1/models/quick") as response:
        assert (await response.json())["id"] == "quick"


async def test_chunks_leave_when_they_are_due_never_before(client: aiohttp.ClientSession) -> None:
    for measurement in measurements():
        found = await stream(client, max_tokens=400, ignore_eos=True)
        assert [truth["due_us"] for truth in sims(found)] == [6_000 + 500 * step for step in range(400)]
        late = late_us(found)
        assert min(late) >= 0
        with measurement:
            assert median(late) < 20_000  # of 200,000; sleeps of 0.5 ms each would end 200,000 late
            assert median(late[-100:]) - median(late[:100]) < 20_000


def late_us(found: list[Any]) -> list[float]:
    """Return how late each chunk of a stream was written."""
    arrived_ns = found[0]["sim"]["arrived_ns"]
    return [(truth["sent_ns"] - arrived_ns) / 1000 - truth["due_us"] for truth in sims(found)]


async def test_usage_counts_exactly_what_was_sent(client: aiohttp.ClientSession) -> None:
    found = await stream(client, model="thinking", stream_options={"include_usage": True})
    usage = found[-2]
    thought, text = text_of(found, "reasoning"), text_of(found)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(sims(found))
    assert usage["usage"]["completion_tokens_details"]["reasoning_tokens"] == len(split_tokens(thought))
    assert text == load_book().find("haiku").text
    counts = usage["usage"]
    assert counts["total_tokens"] == counts["prompt_tokens"] + counts["completion_tokens"]


async def test_usage_is_not_sent_unasked(client: aiohttp.ClientSession) -> None:
    assert not any("usage" in event for event in await stream(client) if isinstance(event, dict))


@pytest.mark.parametrize(("slug", "field"), [("thinking", "reasoning"), ("older", "reasoning_content")])
async def test_thinking_goes_into_the_field_of_the_profile(
    client: aiohttp.ClientSession, slug: str, field: str
) -> None:
    found = await stream(client, model=slug)
    fields = [name for event in found[1:-2] for name in event["choices"][0]["delta"]]
    assert fields == sorted(fields, reverse=True)  # all of the thinking first
    assert set(fields) == {field, "content"}


async def test_a_bursty_profile_sends_several_tokens_a_chunk(client: aiohttp.ClientSession) -> None:
    found = await stream(client, model="bursty", stream_options={"include_usage": True})
    tokens = found[-2]["usage"]["completion_tokens"]
    assert len(sims(found)) == -(-tokens // 5)


async def test_the_same_seed_gives_the_same_text_and_where_steps_have_no_noise_the_same_times(
    client: aiohttp.ClientSession,
) -> None:
    one, two = [await stream(client, "hello", seed=42) for _ in range(2)]
    assert text_of(one) == text_of(two)
    assert [truth["due_us"] for truth in sims(one)] == [truth["due_us"] for truth in sims(two)]


async def test_forced_length_is_exact(client: aiohttp.ClientSession) -> None:
    found = await stream(client, max_tokens=123, ignore_eos=True, stream_options={"include_usage": True})
    assert found[-2]["usage"]["completion_tokens"] == 123
    assert found[-3]["choices"][0]["finish_reason"] == "length"


async def test_stop_ends_the_text(client: aiohttp.ClientSession) -> None:
    found = await stream(client, stop=["breath"])
    assert text_of(found) == "The cursor blinks twice.\nBefore I finish my "
    assert found[-2]["choices"][0]["finish_reason"] == "stop"


async def test_a_whole_answer_holds_the_same_as_a_stream(client: aiohttp.ClientSession) -> None:
    async with client.post(CHAT, json=body("Write a haiku", model="thinking", seed=1)) as response:
        assert response.headers["X-Simulated"] == "1"
        whole = await response.json()
    found = await stream(client, model="thinking", seed=1, stream_options={"include_usage": True})
    message = whole["choices"][0]["message"]
    assert message["content"] == text_of(found)
    assert message["reasoning"] == text_of(found, "reasoning")
    assert whole["usage"] == found[-2]["usage"]
    streamed = found[-2]["time_info"]
    assert streamed.pop("emitted")  # a whole answer is written at one instant
    assert whole["time_info"] == streamed
    assert whole["object"] == "chat.completion"


async def test_streams_do_not_move_each_other(simulator: str) -> None:
    async with aiohttp.ClientSession(simulator) as session:
        fields = {"max_tokens": 200, "ignore_eos": True}
        for measurement in measurements():
            found = [late_us(one) for one in await asyncio.gather(*(stream(session, **fields) for _ in range(8)))]
            assert [len(late) for late in found] == [200] * 8
            assert min(map(min, found)) >= 0
            with measurement:
                assert max(map(median, found)) < 20_000  # of 100,000


async def completed(client: aiohttp.ClientSession, **fields: Any) -> list[Any]:
    table = {"model": "quick", "prompt": "Write a haiku", "stream": True, **fields}
    async with client.post(TEXT, json=table) as response:
        assert response.status == 200
        return events(await response.read())


async def test_a_text_completion_streams_text_and_no_thoughts(client: aiohttp.ClientSession) -> None:
    found = await completed(client, model="thinking", stream_options={"include_usage": True})
    text = "".join(choice["text"] for event in found[:-1] for choice in event["choices"])
    assert text == load_book().find("haiku").text
    assert {event["object"] for event in found[:-1]} == {"text_completion"}
    assert found[-3]["choices"][0]["finish_reason"] == "stop"
    assert found[-2]["usage"]["completion_tokens"] == len(sims(found))
    assert found[-1] == "[DONE]"


async def test_a_whole_text_completion_holds_the_same_as_a_stream(client: aiohttp.ClientSession) -> None:
    async with client.post(TEXT, json={"model": "quick", "prompt": ["Write a haiku"], "max_tokens": 5}) as response:
        whole = await response.json()
    found = await completed(client, max_tokens=5)
    assert whole["choices"][0]["text"] == "".join(event["choices"][0]["text"] for event in found[:-1])
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["object"] == "text_completion"
    assert whole["id"].startswith("cmpl-")


async def test_an_http_1_0_client_gets_plain_bytes_until_the_end(simulator: str) -> None:
    host, port = simulator.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    text = orjson.dumps(body("Write a haiku", stream=True))
    writer.write(b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(text), text))
    head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b"chunked" not in head.lower()
    assert text_of(events(rest)) == load_book().find("haiku").text
