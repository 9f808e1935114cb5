"""The machine wire, driven by the official client and by hand: what passes, and what is left out."""

from __future__ import annotations

import aiohttp
import openai
import pytest

from tests.live import LiveApp
from tests.upstreams import Upstream
from tests.upstreams.wire import REASONING, TEXT, TOKENS
from tests.web.conftest import HELLO, AddBackend, asked, page_with, stream_events


async def test_the_official_client_lists_the_backends(live_app: LiveApp, client: openai.AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]
    assert "oci-llama-70b" in [model.id for model in models]
    assert all(model.object == "model" and model.created > 0 for model in models)


async def test_the_official_client_streams(client: openai.AsyncOpenAI, add_backend: AddBackend) -> None:
    slug = await add_backend()
    stream = await client.chat.completions.create(model=slug, messages=HELLO, stream=True)  # type: ignore[call-overload]
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("model", ["ok-usage-every", "ok-transformers", "ok-timeinfo"])
async def test_usage_beside_text_is_kept_from_who_did_not_ask_and_given_to_who_did(
    model: str, http: aiohttp.ClientSession, add_backend: AddBackend
) -> None:
    slug = await add_backend(model)
    unasked = (await stream_events(http, slug))[:-1]
    asked = (await stream_events(http, slug, stream_options={"include_usage": True}))[:-1]
    assert not any("usage" in event for event in unasked)
    assert any(event.get("usage") and event["choices"] for event in asked)
    assert [event["choices"] for event in unasked] == [event["choices"] for event in asked if event["choices"]]


async def test_usage_comes_where_it_was_asked_for(client: openai.AsyncOpenAI, add_backend: AddBackend) -> None:
    stream = await client.chat.completions.create(  # type: ignore[call-overload]
        model=await add_backend(), messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len(TOKENS)


@pytest.mark.parametrize("model", ["ok", "ok-reasoning", "ok-reasoning-content", "ok-multi", "ok-transformers"])
async def test_the_official_client_gets_a_whole_answer(
    model: str, client: openai.AsyncOpenAI, add_backend: AddBackend
) -> None:
    answer = await client.chat.completions.create(model=await add_backend(model), messages=HELLO)  # type: ignore[arg-type]
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens >= len(TOKENS)
    if "reasoning" in model:
        assert answer.choices[0].message.model_dump()["reasoning"] == REASONING


async def test_a_tool_call_is_put_together(client: openai.AsyncOpenAI, add_backend: AddBackend) -> None:
    slug = await add_backend("fault-u30-tools")
    answer = await client.chat.completions.create(model=slug, messages=HELLO)  # type: ignore[arg-type]
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert (calls[0].id, calls[0].function.name, calls[0].function.arguments) == (  # type: ignore[union-attr]
        "call_1",
        "weather",
        '{"city": "Oslo"}',
    )


async def test_what_is_not_ours_is_passed_through_and_the_model_is_the_backends_own(
    upstream: Upstream, client: openai.AsyncOpenAI, add_backend: AddBackend
) -> None:
    await client.chat.completions.create(  # type: ignore[call-overload]
        model=await add_backend(),
        messages=[{"role": "system", "content": "Be brief."}, *HELLO],
        max_tokens=7,
        temperature=0,
        stop=["x"],
        seed=3,
        logit_bias={"50256": -100},
        extra_body={"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}},
    )
    body = asked(upstream)[0].json
    assert body["model"] == "ok"
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, *HELLO]
    assert (body["max_tokens"], body["temperature"], body["stop"], body["seed"]) == (7, 0, ["x"], 3)
    assert (body["top_k"], body["chat_template_kwargs"]) == (5, {"enable_thinking": False})
    assert body["stream"] is True


async def test_the_clients_own_headers_stay_here(
    upstream: Upstream, client: openai.AsyncOpenAI, add_backend: AddBackend
) -> None:
    await client.chat.completions.create(  # type: ignore[call-overload]
        model=await add_backend(), messages=HELLO, extra_headers={"X-Secret": "s", "Cookie": "a=b"}
    )
    headers = asked(upstream)[0].headers
    assert not {"authorization", "x-secret", "cookie", "x-stainless-lang"} & set(headers)
    assert headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "model", ["ok", "ok-nodone", "ok-comments", "ok-crlf", "ok-usage-every", "fault-u20", "fault-u21"]
)
async def test_whatever_a_servers_habits_its_stream_leaves_here_as_openais(
    model: str, http: aiohttp.ClientSession, add_backend: AddBackend
) -> None:
    events = await stream_events(http, await add_backend(model))
    assert events[-1] == "[DONE]"
    assert events.count("[DONE]") == 1
    text = "".join(choice["delta"].get("content") or "" for event in events[:-1] for choice in event["choices"])
    assert text.startswith("Grüße" if model == "fault-u21" else TEXT)


async def test_a_stream_is_not_compressed_cached_or_buffered_on_its_way(
    http: aiohttp.ClientSession, add_backend: AddBackend
) -> None:
    body = {"model": await add_backend(), "messages": HELLO, "stream": True}
    headers = {"Accept-Encoding": "gzip, deflate, br"}
    async with http.post("/v1/chat/completions", json=body, headers=headers) as reply:
        assert "Content-Encoding" not in reply.headers
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["X-Accel-Buffering"] == "no"
        assert "Content-Length" not in reply.headers
        await reply.read()


async def test_tokens_are_passed_on_as_they_come(
    upstream: Upstream, http: aiohttp.ClientSession, add_backend: AddBackend
) -> None:
    upstream.gap_s = 0.05
    body = {"model": await add_backend(), "messages": HELLO, "stream": True}
    async with http.post("/v1/chat/completions", json=body) as reply:
        first = await reply.content.readuntil(b"\n\n")
        assert b"role" in first
        assert len(asked(upstream)[0].texts) <= 2
        await reply.read()


async def test_the_answer_names_its_turn_and_the_turn_is_kept(
    live_app: LiveApp, http: aiohttp.ClientSession, add_backend: AddBackend
) -> None:
    body = {"model": await add_backend(), "messages": [{"role": "user", "content": "A prompt to be found again"}]}
    async with http.post("/v1/chat/completions", json=body) as reply:
        turn = reply.headers["X-Splitsecond-Turn"]
        await reply.read()
    assert "A prompt to be found again" in await page_with(live_app, "/runs/", turn)
