"""The upstream client over real sockets: what it sends, what it stamps, and which connections it keeps."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.backends.answering import answering
from tests.backends.conftest import CANARY
from tests.upstreams import Upstream, closed_port, silent_port
from tests.upstreams.wire import TEXT
from webapp.backends import KINDS
from webapp.backends.openai_http import OpenAIHTTP, chat_url
from webapp.clock import now_ns
from webapp.core.errors import StreamError
from webapp.core.spec import BackendSpec, Limits, PromptSpec
from webapp.core.timing import Marks

PROMPT = PromptSpec(({"role": "user", "content": "Grüße"},), max_tokens=5)
LONG_S = 60.0  # for what happens at once, on a machine however busy


def spec_for(url: str, model: str = "ok", key_ref: str = "") -> BackendSpec:
    return BackendSpec("x", "X", url, model, key_ref=key_ref, limits=Limits(connect_s=0.3))


async def ask(client: OpenAIHTTP, spec: BackendSpec) -> tuple[bytes, Marks, bool]:
    """Read a whole answer; return its bytes, its marks, and whether it came on a connection used before."""
    marks, body = Marks(), b""
    async with client.open(spec, PROMPT, marks) as answer:
        async for data in answer.reads:
            body += data
        return body, marks, answer.reused


async def failure(client: OpenAIHTTP, spec: BackendSpec) -> StreamError:
    with pytest.raises(StreamError) as caught:
        await ask(client, spec)
    return caught.value


# What is sent


async def test_the_request_is_one_plain_streaming_chat_request(up: Upstream, client: OpenAIHTTP):
    await ask(client, spec_for(up.url))
    (request,) = up.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.json == {
        "model": "ok",
        "messages": [{"role": "user", "content": "Grüße"}],
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["content-type"] == "application/json"
    assert not {"authorization", "cookie", "expect", "transfer-encoding"} & request.headers.keys()


@pytest.mark.usefixtures("canary")
async def test_the_key_goes_into_its_header_and_nowhere_else(up: Upstream, client: OpenAIHTTP):
    await ask(client, spec_for(up.url, key_ref="env:CANARY"))
    (request,) = up.requests
    assert request.headers.pop("authorization") == f"Bearer {CANARY}"
    assert CANARY not in str(request.headers)
    assert CANARY.encode() not in request.body
    assert CANARY not in request.path


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("model", ["fault-u04", "fault-400", "fault-u07", "fault-u05-path"])
async def test_an_answer_that_repeats_the_key_is_quoted_without_it(model: str, up: Upstream, client: OpenAIHTTP):
    error = await failure(client, spec_for(up.url, model, key_ref="env:CANARY"))
    assert CANARY[:8] not in error.message
    assert CANARY[:8] not in repr(error)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
async def test_a_proxy_in_the_environment_is_not_used(name: str, up: Upstream, monkeypatch: pytest.MonkeyPatch):
    with closed_port() as nowhere:
        monkeypatch.setenv(name, nowhere.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        client = OpenAIHTTP()
        await ask(client, spec_for(up.url))
        await client.close()
    assert len(up.requests) == 1


def test_the_chat_endpoint_lies_below_the_base_url():
    assert chat_url("http://h/v1") == chat_url("http://h/v1/") == "http://h/v1/chat/completions"
    assert KINDS["openai"] is OpenAIHTTP


# What is stamped


async def test_the_marks_of_a_new_connection_come_in_order_and_agree_with_the_upstream(
    up: Upstream, client: OpenAIHTTP
):
    before_ns = now_ns()
    _, marks, reused = await ask(client, spec_for(up.url))
    (request,) = up.requests
    times = [before_ns, marks.connect, marks.connected, marks.sent, request.arrival_ns]
    times += [request.emitted[0].at_ns, marks.headers, now_ns()]
    assert None not in times
    assert times == sorted(times)  # type: ignore[type-var]
    assert not reused


async def test_a_connection_used_again_has_no_connection_marks(up: Upstream, client: OpenAIHTTP):
    await ask(client, spec_for(up.url))
    _, marks, reused = await ask(client, spec_for(up.url))
    assert (reused, marks.connect, marks.connected) == (True, None, None)
    assert marks.sent is not None
    assert marks.headers is not None
    assert marks.sent <= up.requests[1].arrival_ns <= marks.headers


async def test_the_reads_are_the_bytes_that_the_socket_delivered(up: Upstream, client: OpenAIHTTP):
    body, _, _ = await ask(client, spec_for(up.url))
    (request,) = up.requests
    head, *events = [emission.data for emission in request.emitted]
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b"".join(events)


async def test_each_write_of_the_upstream_is_read_before_the_next(up: Upstream, client: OpenAIHTTP):
    times_ns = []
    async with client.open(spec_for(up.url), PROMPT, Marks()) as answer:
        async for data in answer.reads:
            times_ns += [now_ns()] * data.count(b'"content":"')
    texts = up.requests[0].texts
    at_ns = times_ns[-len(texts) :]  # the role chunk's empty content comes first
    assert len(at_ns) == len(texts)
    assert all(sent.at_ns <= ns for sent, ns in zip(texts, at_ns, strict=True))


async def test_a_server_that_says_that_it_plays_a_model_is_believed(up: Upstream, client: OpenAIHTTP):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Simulated: 1\r\nContent-Length: 0\r\n\r\n"
    async with answering(head) as url, client.open(spec_for(url), PROMPT, Marks()) as answer:
        assert answer.simulated
    async with client.open(spec_for(up.url), PROMPT, Marks()) as answer:
        assert not answer.simulated


async def test_an_encoding_of_identity_is_no_encoding(client: OpenAIHTTP):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: Identity\r\n"
    async with answering(head + b"Content-Length: 2\r\n\r\n\n\n") as url:
        assert (await ask(client, spec_for(url)))[0] == b"\n\n"


async def test_an_error_body_that_never_ends_is_read_in_part_only(client: OpenAIHTTP):
    head = b"HTTP/1.1 500 No\r\nContent-Type: text/plain\r\nContent-Length: 9999999\r\n\r\n"
    async with answering(head + b"x" * 200_000) as url, asyncio.timeout(LONG_S):
        error = await failure(client, spec_for(url))
    assert error.kind == "http_status"
    assert len(error.message) < 400


@pytest.mark.parametrize("raw", [b"SSH-2.0-OpenSSH_9\r\n", b"\x15\x03\x01\x00\x02\x02\x50", b"HTTP/9 wat\r\n\r\n"])
async def test_a_port_that_speaks_something_else_is_said_to(raw: bytes, client: OpenAIHTTP):
    async with answering(raw) as url, asyncio.timeout(LONG_S):
        error = await failure(client, spec_for(url))
    assert (error.kind, "valid HTTP" in error.message) == ("protocol", True)


async def test_a_url_that_is_none_is_refused_in_a_sentence(client: OpenAIHTTP):
    error = await failure(client, spec_for("http://exa mple:99999/v1"))
    assert error.kind == "bad_request"


# Which connections are kept


async def test_an_answer_that_ended_leaves_its_connection_for_the_next(up: Upstream, client: OpenAIHTTP):
    for _ in range(3):
        await ask(client, spec_for(up.url))
    assert up.connections == 1
    assert [request.closed_ns for request in up.requests] == [None] * 3


async def test_a_reader_that_stops_at_the_end_marker_leaves_its_connection_too(up: Upstream, client: OpenAIHTTP):
    for _ in range(3):
        async with client.open(spec_for(up.url), PROMPT, Marks()) as answer:
            async for data in answer.reads:
                if b"[DONE]" in data:
                    break
    assert up.connections == 1


@pytest.mark.parametrize("model", ["fault-u12", "fault-u16", "fault-u16-open", "fault-u25-body", "fault-u32"])
async def test_a_connection_that_has_not_ended_is_closed_at_once(model: str, up: Upstream, client: OpenAIHTTP):
    async with client.open(spec_for(up.url, model), PROMPT, Marks()) as answer:
        await anext(answer.reads)
        left_ns = now_ns()
    async with asyncio.timeout(LONG_S):
        request = await up.lost()
    assert request.lost_ns is not None
    assert request.lost_ns > left_ns
    await ask(client, spec_for(up.url))
    assert up.connections == 2


async def test_a_cancelled_reader_is_gone_before_the_next_token(up: Upstream, client: OpenAIHTTP):
    up.gap_s = 0.05

    async def read() -> None:
        async with client.open(spec_for(up.url), PROMPT, Marks()) as answer:
            async for _ in answer.reads:
                reading.set()

    reading = asyncio.Event()
    task = asyncio.create_task(read())
    await reading.wait()
    sent = len(up.requests[0].texts)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(LONG_S):
        request = await up.closed()
    assert len(request.texts) <= sent + 1
    assert request.finished_ns is None


async def test_a_request_that_met_a_closed_connection_is_not_sent_again(up: Upstream, client: OpenAIHTTP):
    error = await failure(client, spec_for(up.url, "fault-u13-early"))
    assert error.kind == "reset"
    assert len(up.requests) == up.connections == 1


async def test_lanes_that_run_at_once_have_a_connection_each(up: Upstream, client: OpenAIHTTP):
    answers = await asyncio.gather(*(ask(client, spec_for(up.url)) for _ in range(4)))
    assert up.connections == 4
    assert all(TEXT.encode()[:5] in body for body, _, _ in answers)


# Warming up


async def test_a_warm_connection_is_the_one_that_the_request_goes_out_on(up: Upstream, client: OpenAIHTTP):
    await client.warm(spec_for(up.url), LONG_S)
    _, marks, reused = await ask(client, spec_for(up.url))
    assert (reused, marks.connect, up.connections) == (True, None, 1)
    assert [request.method for request in up.requests] == ["GET", "POST"]


async def test_lanes_warmed_at_once_all_start_warm(up: Upstream, client: OpenAIHTTP):
    await asyncio.gather(*(client.warm(spec_for(up.url), LONG_S) for _ in range(4)))
    answers = await asyncio.gather(*(ask(client, spec_for(up.url)) for _ in range(4)))
    assert [reused for _, _, reused in answers] == [True] * 4
    assert up.connections == 4


async def test_a_list_of_models_in_several_pieces_does_not_cost_the_warm_connection(client: OpenAIHTTP):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 30\r\n\r\n"
    async with answering(head + b"x" * 10, b"x" * 10, b"x" * 10) as url:
        await client.warm(spec_for(url), LONG_S)
        assert (await ask(client, spec_for(url)))[2]


@pytest.mark.usefixtures("canary")
async def test_warming_up_sends_the_key_and_asks_for_nothing_costly(up: Upstream, client: OpenAIHTTP):
    await client.warm(spec_for(up.url, key_ref="env:CANARY"), LONG_S)
    (request,) = up.requests
    assert (request.method, request.path) == ("GET", "/v1/models")
    assert request.headers["authorization"] == f"Bearer {CANARY}"


async def test_a_warm_up_that_fails_is_not_reported_and_does_not_take_long(client: OpenAIHTTP):
    async with asyncio.timeout(LONG_S):
        with closed_port() as url:
            await client.warm(spec_for(url), LONG_S)
        with silent_port("http") as url:
            await client.warm(spec_for(url), 0.1)
        await client.warm(spec_for("http://127.0.0.1:1/v1", key_ref="env:NOT_SET_ANYWHERE"), LONG_S)


# Names


class Resolver(AbstractResolver):
    """Knows one name. Others are unknown, or never answered for."""

    def __init__(self, port: int = 0, hangs: bool = False) -> None:
        self.port = port
        self.hangs = hangs

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if self.hangs:
            await asyncio.Event().wait()
        if host != "known.example":
            raise OSError(None, "no such name")
        address = ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)
        return [address]

    async def close(self) -> None:
        pass


@contextlib.asynccontextmanager
async def client_with(resolver: Resolver) -> AsyncIterator[OpenAIHTTP]:
    client = OpenAIHTTP(resolver=resolver)
    yield client
    await client.close()


async def test_a_name_that_is_known_is_reached(up: Upstream):
    async with client_with(Resolver()) as client:
        await ask(client, spec_for(up.url.replace("127.0.0.1", "known.example")))
    assert len(up.requests) == 1


async def test_a_name_that_is_unknown_is_said_to_be():
    async with client_with(Resolver()) as client:
        error = await failure(client, spec_for("http://unknown.example/v1"))
    assert error.kind == "dns"
    assert "The name unknown.example could not be found" in error.message


async def test_a_name_that_takes_too_long_is_told_from_a_host_that_does():
    async with client_with(Resolver(hangs=True)) as client, asyncio.timeout(LONG_S):
        error = await failure(client, spec_for("http://slow.example/v1"))
    assert (error.kind, error.outcome) == ("dns_timeout", "timeout")
    assert "slow.example" in error.message


async def test_limits_of_one_backend_are_not_those_of_another(up: Upstream, client: OpenAIHTTP):
    with silent_port() as url:
        slow = asyncio.create_task(failure(client, spec_for(url)))
        await ask(client, replace(spec_for(up.url), limits=Limits()))
        assert (await slow).kind == "connect_timeout"
