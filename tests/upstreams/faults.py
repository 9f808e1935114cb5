"""Faults in the answer's HTTP: refusals, wrong types, silence, early ends. What each comes to stands in `expected`."""

from __future__ import annotations

import gzip
import time
import zlib
from email.utils import formatdate
from functools import partial

import brotli
import orjson

from tests.upstreams import wire
from tests.upstreams.exchange import Exchange
from tests.upstreams.good import ROLE, Scenario, ok
from tests.upstreams.wire import TOKENS

PARTIAL = TOKENS[:3]  # what arrives before a fault in mid-stream
PARTIAL_TEXT = "".join(PARTIAL)


async def refusal(x: Exchange, status: str, message: str, **headers: str) -> None:
    """An error in OpenAI's shape whose message repeats the client's key, as careless gateways do."""
    key = x.request.headers.get("authorization", "(no key)")
    await x.reply(status, orjson.dumps(wire.error(f"{message} [{key}]")), x_request_id="req-0001", **headers)


async def html(x: Exchange, status: str) -> None:
    """A proxy's HTML page of about 2 kB, hostile and talkative about the client's key."""
    key = x.request.headers.get("authorization", "(no key)")
    page = f"<html><title>{status}</title><body><script>alert(1)</script><h1>{status}</h1><p>{key}</p>"
    await x.reply(status, (page + "<p>upstream said no</p>" * 80).encode(), "text/html")


async def unprocessable(x: Exchange) -> None:
    """FastAPI's shape of a validation error."""
    fault = {"type": "float_type", "loc": ["body", "temperature"], "msg": "Input should be a valid number"}
    await x.reply("422 Unprocessable Entity", orjson.dumps({"detail": [fault]}))


async def rate_limited_date(x: Exchange) -> None:
    """Retry-After as an HTTP date 30 s from now."""
    await refusal(x, "429 Too Many Requests", "Slow down", Retry_After=formatdate(time.time() + 30, usegmt=True))


async def json_error_with_200(x: Exchange) -> None:
    await x.reply("200 OK", orjson.dumps(wire.error("The model is overloaded", "overloaded_error")))


async def redirect(x: Exchange, status: str) -> None:
    """Points back here with a secret in the query; a client that follows leaves a second request behind."""
    host = x.request.headers.get("host", "127.0.0.1")
    await x.reply(status, b"", Location=f"http://{host}/elsewhere?token=secret")


async def silence(x: Exchange) -> None:
    await x.hang()


async def half_status_line(x: Exchange) -> None:
    await x.raw(b"HTTP/1.1 20")
    await x.hang()


async def head_only(x: Exchange) -> None:
    await x.begin()
    await x.hang()


async def head_then_heartbeats(x: Exchange) -> None:
    """Comments for ever: bytes flow, but no event ever comes."""
    await x.begin()
    while not x.connection.left.is_set():
        await x.send(b": ping\n\n")
        await x.pause(4)


async def begin_partial(x: Exchange) -> None:
    await x.begin()
    await x.send(ROLE)
    await x.tokens(PARTIAL)


async def stall(x: Exchange) -> None:
    await begin_partial(x)
    await x.hang()


async def stall_after_role(x: Exchange) -> None:
    await x.begin()
    await x.send(ROLE)
    await x.hang()


async def reset(x: Exchange) -> None:
    await begin_partial(x)
    await x.reset()


async def reset_after_head(x: Exchange) -> None:
    await x.begin()
    await x.reset()


async def reset_at_once(x: Exchange) -> None:
    await x.reset()


async def early_end(x: Exchange) -> None:
    """The chunked body ends properly, the answer does not: no finish reason, no end marker."""
    await begin_partial(x)
    await x.end()


async def early_end_of_connection(x: Exchange) -> None:
    """No length and no chunks: the body ends where the connection does, so HTTP itself sees nothing wrong."""
    await x.raw(wire.head("200 OK", {"Content-Type": "text/event-stream", "Connection": "close"}))
    await x.tokens(PARTIAL)
    x.close()


async def early_end_of_chunks(x: Exchange) -> None:
    """The connection ends before the last chunk."""
    await begin_partial(x)
    x.close()


async def early_end_of_length(x: Exchange) -> None:
    """Fewer bytes than Content-Length promised."""
    await x.raw(wire.head("200 OK", {"Content-Type": "text/event-stream", "Content-Length": "100000"}))
    await x.tokens(PARTIAL)
    x.close()


def whole_stream() -> bytes:
    events = [ROLE, *(wire.event(wire.chunk({"content": token})) for token in TOKENS)]
    return b"".join([*events, wire.event(wire.chunk({}, finish="stop")), wire.DONE])


def gzip_members(data: bytes) -> bytes:
    """Return `data` as five gzip members in a row, which is one legal gzip stream."""
    size = len(data) // 5 + 1
    return b"".join(gzip.compress(data[start : start + size]) for start in range(0, len(data), size))


async def encoded(x: Exchange, encoding: str, body: bytes) -> None:
    """A compressed body though `identity` was asked for."""
    await x.begin(Content_Encoding=encoding)
    await x.send(body, wire.TEXT)
    await x.end()


async def http10(x: Exchange) -> None:
    await x.raw(wire.head("200 OK", {"Content-Type": "text/event-stream"}, "HTTP/1.0"))
    await x.send(whole_stream(), wire.TEXT)
    x.close()


async def extensions_and_trailers(x: Exchange) -> None:
    await x.begin(Trailer="X-Checksum")
    for part in (ROLE, whole_stream()[len(ROLE) :]):
        text = wire.TEXT if part is not ROLE else ""
        await x.raw(b"%x;name=value;flag\r\n%b\r\n" % (len(part), part), text, recorded=part)
    await x.raw(b"0;last\r\nX-Checksum: 1234\r\n\r\n", recorded=b"")


async def odd_content_type(x: Exchange) -> None:
    """Media types are case-insensitive and may carry parameters (RFC 9110, 8.3.1)."""
    await x.begin(content_type="Text/Event-Stream;Charset=UTF-8 ; x=y")
    await x.send(whole_stream(), wire.TEXT)
    await x.end()


async def no_content_type(x: Exchange) -> None:
    """An event stream that does not say that it is one."""
    await x.raw(wire.head("200 OK", {"Transfer-Encoding": "chunked"}))
    x.chunked = True
    await x.send(whole_stream(), wire.TEXT)
    await x.end()


async def interim(x: Exchange, status: str) -> None:
    """A 1xx answer before the real one."""
    await x.raw(wire.head(status, {"Link": "</a.css>; rel=preload"} if "103" in status else {}))
    await x.pause()
    await ok(x)


TOO_LONG = "This model's maximum context length is 8192 tokens"
RATE_LIMIT = partial(refusal, status="429 Too Many Requests", message="Slow down")

HTTP_FAULTS: dict[str, Scenario] = {
    "fault-400": partial(refusal, status="400 Bad Request", message=TOO_LONG),
    "fault-422": unprocessable,
    "fault-u04": partial(refusal, status="401 Unauthorized", message="Incorrect API key provided"),
    "fault-u04-403": partial(refusal, status="403 Forbidden", message="This key may not use this model"),
    "fault-u05": partial(refusal, status="404 Not Found", message="The model does not exist"),
    "fault-u05-path": partial(html, status="404 Not Found"),
    "fault-u06": partial(RATE_LIMIT, Retry_After="7"),
    "fault-u06-date": rate_limited_date,
    "fault-u06-absent": RATE_LIMIT,
    "fault-u06-absurd": partial(RATE_LIMIT, Retry_After="999999999999999999999"),
    "fault-u06-words": partial(RATE_LIMIT, Retry_After="in a while"),
    "fault-u07": partial(html, status="502 Bad Gateway"),
    "fault-u07-500": partial(html, status="500 Internal Server Error"),
    "fault-u07-503": partial(html, status="503 Service Unavailable"),
    "fault-u07-529": partial(html, status="529 Site Is Overloaded"),
    "fault-u08": json_error_with_200,
    "fault-u08-html": partial(html, status="200 OK"),
    "fault-u09": partial(redirect, status="302 Found"),
    "fault-u09-307": partial(redirect, status="307 Temporary Redirect"),
    "fault-u09-308": partial(redirect, status="308 Permanent Redirect"),
    "fault-u10": silence,
    "fault-u10-half": half_status_line,
    "fault-u11": head_only,
    "fault-u11-comments": head_then_heartbeats,
    "fault-u12": stall,
    "fault-u12-role": stall_after_role,
    "fault-u13": reset,
    "fault-u13-head": reset_after_head,
    "fault-u13-early": reset_at_once,
    "fault-u14": early_end,
    "fault-u14-close": early_end_of_connection,
    "fault-u14-chunks": early_end_of_chunks,
    "fault-u14-length": early_end_of_length,
    "fault-u26": partial(encoded, encoding="gzip", body=gzip.compress(whole_stream())),
    "fault-u26-members": partial(encoded, encoding="gzip", body=gzip_members(whole_stream())),
    "fault-u26-deflate": partial(encoded, encoding="deflate", body=zlib.compress(whole_stream())),
    "fault-u26-br": partial(encoded, encoding="br", body=brotli.compress(whole_stream())),
    "fault-u34-http10": http10,
    "fault-u34-chunks": extensions_and_trailers,
    "fault-u34-type": odd_content_type,
    "fault-u34-notype": no_content_type,
    "fault-u34-100": partial(interim, status="100 Continue"),
    "fault-u34-103": partial(interim, status="103 Early Hints"),
}
