"""The machine wire, driven by the official client and by hand: what passes, what is refused, what is left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import orjson
import pytest

from tests.live import LiveApp
from tests.upstreams import Upstream, closed_port
from tests.upstreams.wire import REASONING, TEXT, TOKENS
from tests.web.conftest import AddBackend, asked

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
async def client(live_app: LiveApp) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, as anybody would point it here."""
    async with openai.AsyncOpenAI(base_url=f"{live_app.url}/v1", api_key="none", max_retries=0) as official:
        yield official


@pytest.fixture
async def http(live_app: LiveApp) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(live_app.url) as session:
        yield session


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


async def test_an_unknown_model_is_not_found_in_the_clients_own_words(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        await client.chat.completions.create(model="gpt-nope", messages=HELLO)  # type: ignore[arg-type]
    assert error.value.code == "model_not_found"
    assert error.value.param == "model"
    assert error.value.type == "invalid_request_error"
    assert "gpt-nope" in error.value.message


OVERRIDES = (
    "api_base", "base_url", "api_key", "api_version", "api_type", "organization", "headers", "extra_headers",
    "default_headers", "extra_body", "extra_query", "proxy", "proxies", "custom_llm_provider", "azure_endpoint",
    "azure_ad_token", "aws_access_key_id", "aws_secret_access_key", "vertex_credentials", "deployment_id",
)  # fmt: skip


@pytest.mark.parametrize("field", OVERRIDES)
async def test_a_request_cannot_say_whom_to_ask_or_with_which_key(
    field: str, upstream: Upstream, http: aiohttp.ClientSession, add_backend: AddBackend
) -> None:
    slug = await add_backend()
    for value in ("http://127.0.0.1:1/v1", None, {"a": "b"}):
        async with http.post("/v1/chat/completions", json={"model": slug, "messages": HELLO, field: value}) as reply:
            assert reply.status == 400
            assert (await reply.json())["error"]["param"] == field
    assert not upstream.requests


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no messages": ({"messages": None}, "messages"),
    "empty messages": ({"messages": []}, "messages"),
    "messages as text": ({"messages": "Hello"}, "messages"),
    "a message as text": ({"messages": [*HELLO, "Hello"]}, "messages[1]"),
    "a message without a role": ({"messages": [{"content": "x"}]}, "messages[0]"),
    "a role that is no text": ({"messages": [{"role": 1, "content": "x"}]}, "messages[0]"),
    "too many messages": ({"messages": HELLO * 1001}, "messages"),
    "no model": ({"model": None}, "model"),
    "a model that is no text": ({"model": ["ok"]}, "model"),
    "several answers": ({"n": 2}, "n"),
    "stream as text": ({"stream": "yes"}, "stream"),
    "stream as a number": ({"stream": 1}, "stream"),
    "stream options as text": ({"stream": True, "stream_options": "usage"}, "stream_options"),
}


@pytest.mark.parametrize(("fields", "param"), WRONG.values(), ids=WRONG)
async def test_a_wrong_type_is_named_before_anything_is_sent(
    fields: dict[str, Any], param: str, upstream: Upstream, http: aiohttp.ClientSession, add_backend: AddBackend
) -> None:
    body = {"model": await add_backend(), "messages": HELLO, **fields}
    async with http.post("/v1/chat/completions", json=body) as reply:
        assert reply.status == 400
        error = (await reply.json())["error"]
    assert error["param"] == param
    assert error["message"].endswith(".")
    assert not upstream.requests


DEEP = b'{"model": "%s", "messages": [{"role": "user", "content": ' + b"[" * 300 + b"]" * 300 + b"}]}"
BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"7",
    "not UTF-8": b'{"model": "\xff"}',
    "a lone surrogate": b'{"model": "\\ud800"}',
    "far too deep": b"[" * 100_000,
    "NaN": b'{"model": "x", "messages": NaN}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_body_that_is_no_object_is_a_bad_request(body: bytes, http: aiohttp.ClientSession) -> None:
    headers = {"Content-Type": "application/json"}
    async with http.post("/v1/chat/completions", data=body, headers=headers) as reply:
        assert reply.status == 400
        assert (await reply.json())["error"]["type"] == "invalid_request_error"


async def test_a_body_too_deep_to_pass_on_is_a_bad_request(
    upstream: Upstream, http: aiohttp.ClientSession, add_backend: AddBackend
) -> None:
    slug = await add_backend()
    headers = {"Content-Type": "application/json"}
    async with http.post("/v1/chat/completions", data=DEEP % slug.encode(), headers=headers) as reply:
        assert reply.status == 400
    assert not upstream.requests


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_only_json_is_taken_so_that_no_form_of_another_page_passes(
    kind: str, http: aiohttp.ClientSession
) -> None:
    async with http.post("/v1/chat/completions", data=b"{}", headers={"Content-Type": kind}) as reply:
        assert reply.status == 415


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1"])
async def test_pages_of_other_origins_are_refused(
    origin: str, upstream: Upstream, http: aiohttp.ClientSession, add_backend: AddBackend
) -> None:
    body = {"model": await add_backend(), "messages": HELLO}
    async with http.post("/v1/chat/completions", json=body, headers={"Origin": origin}) as reply:
        assert reply.status == 403
        assert "Access-Control-Allow-Origin" not in reply.headers
    assert not upstream.requests


async def test_our_own_page_may_ask(live_app: LiveApp, http: aiohttp.ClientSession, add_backend: AddBackend) -> None:
    body = {"model": await add_backend(), "messages": HELLO}
    async with http.post("/v1/chat/completions", json=body, headers={"Origin": live_app.url}) as reply:
        assert reply.status == 200


@pytest.mark.parametrize(
    ("model", "retry_after"),
    [
        ("fault-u06", "7"),
        ("fault-u06-date", None),
        ("fault-u06-absent", ""),
        ("fault-u06-absurd", ""),
        ("fault-u06-words", ""),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_rate_limit_is_passed_on_with_the_time_to_wait(
    model: str, retry_after: str | None, stream: bool, http: aiohttp.ClientSession, add_backend: AddBackend
) -> None:
    body = {"model": await add_backend(model), "messages": HELLO, "stream": stream}
    async with http.post("/v1/chat/completions", json=body) as reply:
        assert reply.status == 429
        assert (await reply.json())["error"]["code"] == "rate_limited"
        wait = reply.headers.get("Retry-After", "")
    if retry_after is None:
        assert 25 <= int(wait) <= 30
    else:
        assert wait == retry_after


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("fault-400", 400, "bad_request"),
        ("fault-422", 400, "bad_request"),
        ("fault-u04", 502, "auth"),
        ("fault-u05", 502, "not_found"),
        ("fault-u07", 502, "http_status"),
        ("fault-u08", 502, "not_a_stream"),
        ("fault-u09", 502, "redirected"),
        ("fault-u13-early", 502, "reset"),
        ("fault-u26", 502, "encoding"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_before_the_first_byte_has_a_status_of_its_own(
    model: str, status: int, code: str, stream: bool, http: aiohttp.ClientSession, add_backend: AddBackend
) -> None:
    body = {"model": await add_backend(model), "messages": HELLO, "stream": stream}
    async with http.post("/v1/chat/completions", json=body) as reply:
        assert reply.content_type == "application/json"
        error = (await reply.json())["error"]
        assert error["code"] == code
        assert reply.status == status
        assert "<script" not in error["message"]


async def test_a_closed_port_is_a_bad_gateway(http: aiohttp.ClientSession, add_backend: AddBackend) -> None:
    with closed_port() as url:
        body = {"model": await add_backend(base_url=url), "messages": HELLO}
        async with http.post("/v1/chat/completions", json=body) as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (502, "refused")


@pytest.mark.parametrize("model", ["fault-u17", "fault-u17-event", "fault-u13", "fault-u14", "fault-u18-many"])
async def test_a_fault_in_mid_stream_is_an_error_event_and_then_the_end_marker(
    model: str, http: aiohttp.ClientSession, add_backend: AddBackend
) -> None:
    events = await stream_events(http, await add_backend(model))
    texts = [event["choices"][0]["delta"].get("content") or "" for event in events[:-2]]
    assert "".join(texts) == "".join(TOKENS[:3])
    assert events[-2]["error"]["message"]
    assert events[-1] == "[DONE]"


async def test_the_official_client_raises_what_broke_its_stream(
    client: openai.AsyncOpenAI, add_backend: AddBackend
) -> None:
    slug = await add_backend("fault-u17")
    stream = await client.chat.completions.create(model=slug, messages=HELLO, stream=True)  # type: ignore[call-overload]
    texts: list[str] = []
    with pytest.raises(openai.APIError, match="The engine died"):
        await collect(stream, texts)
    assert "".join(texts) == "".join(TOKENS[:3])


async def collect(stream: Any, texts: list[str]) -> None:
    async for chunk in stream:
        texts.append(chunk.choices[0].delta.content or "")


async def test_a_fault_in_mid_answer_fails_a_whole_answer(client: openai.AsyncOpenAI, add_backend: AddBackend) -> None:
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model=await add_backend("fault-u17"), messages=HELLO)  # type: ignore[arg-type]


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


async def stream_events(http: aiohttp.ClientSession, slug: str, **fields: Any) -> list[Any]:
    """Return a stream's events, parsed."""
    body = {"model": slug, "messages": HELLO, "stream": True, **fields}
    async with http.post("/v1/chat/completions", json=body) as reply:
        assert reply.status == 200
        assert reply.content_type == "text/event-stream"
        data = await reply.read()
    events = [line.removeprefix(b"data: ") for line in data.split(b"\n") if line]
    return ["[DONE]" if event == b"[DONE]" else orjson.loads(event) for event in events]


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
    browser = live_app.browser()
    async with asyncio.timeout(5):
        while turn not in (page := (await asyncio.to_thread(browser.get, "/runs/")).text):
            await asyncio.sleep(0.02)
    assert "A prompt to be found again" in page


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_not_allowed(method: str, http: aiohttp.ClientSession) -> None:
    async with http.request(method, "/v1/chat/completions") as reply:
        assert reply.status == 405
