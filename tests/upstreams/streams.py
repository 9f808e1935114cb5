"""Faults inside an event stream that HTTP finds nothing wrong with: framing, JSON, Unicode, size, endings."""

from __future__ import annotations

from functools import partial

from tests.upstreams import wire
from tests.upstreams.exchange import Exchange
from tests.upstreams.faults import PARTIAL, begin_partial, whole_stream
from tests.upstreams.good import ROLE, Scenario, no_done, zero
from tests.upstreams.wire import TEXT, TOKENS, UNICODE_TEXT, UNICODE_TOKENS, chunk, event

FAST_TOKENS = 100_000
STOP = event(chunk({}, finish="stop"))
BAD_JSON = b'data: {"choices": [{"delta": {"content": "lost\n\n'
INVALID_UTF8 = event(b'{"choices":[{"index":0,"delta":{"content":"a\xff\xc3(b"}}]}')
INVALID_TEXT = "a\ufffd\ufffd(b"
LONE_SURROGATE = event(b'{"choices":[{"index":0,"delta":{"content":"a\\ud83db"}}]}')
# Events of valid JSON that are no chunks. A client that indexes before it looks dies of each of them.
WRONG_SHAPES = (b"42", b"null", b'{"choices": "x"}', b'{"choices": [7]}', b'{"choices": [{"delta": "x"}]}')


async def stream(x: Exchange, *parts: tuple[bytes, str]) -> None:
    """Send a stream of these (bytes, text inside) parts, one write each, and end the body."""
    await x.begin()
    for data, text in parts:
        await x.send(data, text)
        await x.pause()
    await x.end()


def said(tokens: tuple[str, ...] = TOKENS, end: bytes = b"\n") -> list[tuple[bytes, str]]:
    return [(event(chunk({"content": token}), end), token) for token in tokens]


async def around(x: Exchange, *odd: bytes, text: str = "") -> None:
    """A good answer with odd events after its first three tokens; `text` is what the first of them says."""
    oddities = [(data, text if number == 0 else "") for number, data in enumerate(odd)]
    await stream(x, (ROLE, ""), *said(PARTIAL), *oddities, *said(TOKENS[3:]), (STOP, ""), (wire.DONE, ""))


async def broken_off(x: Exchange, *last: bytes) -> None:
    """Three tokens, then these events, then a proper end of the body."""
    await stream(x, (ROLE, ""), *said(PARTIAL), *((data, "") for data in last))


async def talks_on_after_done(x: Exchange) -> None:
    """More events after the end marker, until the client leaves."""
    await x.begin()
    await x.send(whole_stream(), TEXT)
    while not x.connection.left.is_set():
        await x.send(event(chunk({"content": " and another thing"})))
        await x.pause()


async def stays_open_after_done(x: Exchange) -> None:
    """The end marker, and then neither an end of the body nor of the connection."""
    await x.begin()
    await x.send(whole_stream(), TEXT)
    await x.hang()


async def ignores_our_close(x: Exchange) -> None:
    """As `talks_on_after_done`, but deaf to the client's FIN: only RST, a failed write, ends it."""
    await x.begin()
    await x.send(whole_stream(), TEXT)
    while not x.connection.transport.is_closing():
        await x.send(event(chunk({"content": " and another thing"})))
        await x.pause()


async def loose_framing(x: Exchange) -> None:
    """Legal by the WHATWG rules, all of it: BOM, no space, unknown fields, id, retry, data on two lines."""
    half = b'data: {"choices": [{"index": 0,\ndata: "delta": {"content": "%b"}}]}\n\n'
    odd = [
        (b"\xef\xbb\xbf" + b"unknown: field\nid: 1\nretry: 1000\nnocolon\n" + ROLE, ""),
        (event(chunk({"content": TOKENS[0]})).replace(b"data: ", b"data:", 1), TOKENS[0]),
        (b"event: message\n" + event(chunk({"content": TOKENS[1]})), TOKENS[1]),
        (half % TOKENS[2].encode(), TOKENS[2]),
        (b"data\n\n", ""),  # dispatches an event with empty data
        (b"\n\n\n", ""),
    ]
    await stream(x, *odd, *said(TOKENS[3:]), (STOP, ""), (wire.DONE, ""))


async def unfinished_marker(x: Exchange) -> None:
    """The end marker without its blank line: by the rules never dispatched, but the finish reason was."""
    await stream(x, *said(), (STOP, ""), (wire.DONE[:-1], ""))


async def mixed_line_ends(x: Exchange) -> None:
    """Events ending in LF, CRLF and CR in turn; every CRLF is split between two writes."""
    await x.begin()
    for number, token in enumerate(TOKENS):
        data = event(chunk({"content": token}), (b"\n", b"\r\n", b"\r")[number % 3])
        parts = [data[:-3], data[-3:-1], data[-1:]] if number % 3 == 1 else [data]
        for place, part in enumerate(parts):
            await x.send(part, token if place == len(parts) - 1 else "")
            await x.pause()
    await x.send(STOP + wire.DONE)
    await x.end()


async def slices(x: Exchange, data: bytes, text: str, size: int) -> None:
    """One stream cut into writes of `size` bytes, wherever that falls."""
    await x.begin()
    for start in range(0, len(data), size):
        await x.send(data[start : start + size], text if start + size >= len(data) else "")
    await x.end()


async def heartbeats(x: Exchange) -> None:
    """Twenty heartbeats between head and first token, and then a good answer."""
    pings = [(b": ping\n\n", "")] * 20
    await stream(x, *pings, (ROLE, ""), *said(), (STOP, ""), (wire.DONE, ""))


async def heartbeats_for_ever(x: Exchange) -> None:
    """Three tokens and then only heartbeats: the connection lives, the answer does not."""
    await begin_partial(x)
    while not x.connection.left.is_set():
        await x.send(b": ping\n\n")
        await x.pause(4)


async def for_ever(x: Exchange, data: bytes) -> None:
    """Three tokens and then these bytes, as fast as the client takes them, until it leaves."""
    await begin_partial(x)
    while not x.connection.left.is_set():
        await x.send(data)


async def fast(x: Exchange) -> None:
    """100,000 tokens, one per event, a hundred events per write, as fast as the client takes them."""
    await x.begin()
    await x.send(ROLE)
    batch = event(chunk({"content": " word"})) * 100
    for _ in range(FAST_TOKENS // 100):
        await x.send(batch, " word" * 100)
    await x.finish(FAST_TOKENS, "length")


async def empty_deltas(x: Exchange) -> None:
    """Events without text before, between and after the tokens."""
    nothing = [(data, "") for data in EMPTY_EVENTS]
    await stream(x, (ROLE, ""), *nothing, *said(PARTIAL), *nothing, *said(TOKENS[3:]), *nothing, (STOP + wire.DONE, ""))


async def other_choices(x: Exchange) -> None:
    """Two choices in turn, each event naming one: only choice 0 is the answer."""
    await x.begin()
    for token in TOKENS:
        await x.send(event(chunk({"content": "(other)"}, index=1)))
        await x.send(event(chunk({"content": token})), token)
        await x.pause()
    await x.send(event(chunk({}, finish="stop", index=1)))
    await x.finish(2 * len(TOKENS))


async def tool_call(x: Exchange) -> None:
    """A tool call in five pieces and no content at all."""
    await x.begin()
    await x.send(ROLE)
    for piece in ("", '{"ci', 'ty": ', '"Oslo"', "}"):
        function = {"name": "weather", "arguments": ""} if not piece else {"arguments": piece}
        call = {"index": 0, "function": function} | ({} if piece else {"id": "call_1", "type": "function"})
        await x.send(event(chunk({"tool_calls": [call]})), piece)
        await x.pause()
    await x.finish(9, "tool_calls")


UNICODE_STREAM = b"".join([*(data for data, _ in said(UNICODE_TOKENS)), STOP, wire.DONE])
ERROR_EVENT = event(wire.error("The engine died <b>badly</b>"))
ROUTER_ERROR = event(chunk({"content": ""}, finish="error", **wire.error("Provider disconnected", code=502)))
EMPTY_EVENTS = (
    event(chunk({})),
    event(chunk({"content": ""})),
    event(chunk({"content": None})),
    event(chunk(None)),
)

STREAM_FAULTS: dict[str, Scenario] = {
    "fault-u15": no_done,
    "fault-u16": talks_on_after_done,
    "fault-u16-open": stays_open_after_done,
    "fault-u17": lambda x: broken_off(x, ERROR_EVENT),
    "fault-u17-done": lambda x: broken_off(x, ERROR_EVENT, wire.DONE),
    "fault-u17-event": lambda x: broken_off(x, b"event: error\n" + ERROR_EVENT),
    "fault-u17-plain": lambda x: broken_off(x, b"event: error\ndata: out of memory\n\n"),
    "fault-u17-string": lambda x: broken_off(x, event({"error": "`max_new_tokens` must be greater than 0"})),
    "fault-u17-router": lambda x: broken_off(x, ROUTER_ERROR, wire.DONE),
    "fault-u18": lambda x: around(x, BAD_JSON),
    "fault-u18-many": lambda x: around(x, *[BAD_JSON] * 6),
    "fault-u18-shapes": lambda x: around(x, *(event(shape) for shape in WRONG_SHAPES)),
    "fault-u19": loose_framing,
    "fault-u19-tail": unfinished_marker,
    "fault-u20": mixed_line_ends,
    "fault-u20-cr": lambda x: stream(x, *said(end=b"\r"), (STOP.replace(b"\n", b"\r"), ""), (b"data: [DONE]\r\r", "")),
    "fault-u21": partial(slices, data=UNICODE_STREAM, text=UNICODE_TEXT, size=1),
    "fault-u22": lambda x: stream(x, *said(UNICODE_TOKENS), *said(("\x00|",)), (STOP, ""), (wire.DONE, "")),
    "fault-u22-invalid": lambda x: around(x, INVALID_UTF8, text=INVALID_TEXT),
    "fault-u22-surrogate": lambda x: around(x, LONE_SURROGATE, text="a\ufffdb"),
    "fault-u23": partial(slices, data=whole_stream(), text=TEXT, size=1 << 20),
    "fault-u23-bytes": partial(slices, data=whole_stream(), text=TEXT, size=1),
    "fault-u24": heartbeats,
    "fault-u24-forever": heartbeats_for_ever,
    "fault-u25": partial(for_ever, data=b"x" * 65536),
    "fault-u25-body": partial(for_ever, data=event(chunk({}, padding="y" * 65536))),
    "fault-u25-events": partial(for_ever, data=event(chunk({})) * 200),
    "fault-u27": fast,
    "fault-u28": zero,
    "fault-u29": empty_deltas,
    "fault-u30": other_choices,
    "fault-u30-tools": tool_call,
    "fault-u32": ignores_our_close,
}
