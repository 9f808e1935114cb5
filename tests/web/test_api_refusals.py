"""The machine wire, when it does not work: what is refused, what a backend refuses, and what breaks in the middle."""

from __future__ import annotations

from typing import Any

import aiohttp
import openai
import pytest

from tests.live import LiveApp
from tests.upstreams import Upstream, closed_port
from tests.upstreams.wire import TOKENS
from tests.web.conftest import HELLO, AddBackend, stream_events


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


@pytest.mark.parametrize(("model", "asked"), [("fault-u04", 1), ("fault-u07", 2)], ids=["our key", "its fault"])
async def test_a_client_does_not_ask_again_where_that_cannot_help(
    model: str, asked: int, live_app: LiveApp, upstream: Upstream, add_backend: AddBackend
) -> None:
    slug = await add_backend(model)
    async with openai.AsyncOpenAI(base_url=f"{live_app.url}/v1", api_key="none", max_retries=1) as official:
        with pytest.raises(openai.InternalServerError):
            await official.chat.completions.create(model=slug, messages=HELLO)  # type: ignore[arg-type]
    assert len(upstream.requests) == asked


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


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_not_allowed(method: str, http: aiohttp.ClientSession) -> None:
    async with http.request(method, "/v1/chat/completions") as reply:
        assert reply.status == 405
