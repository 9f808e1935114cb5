"""Every fault as the app's own client sees it, over a real socket, and the table they stand in."""

import asyncio
import re
import zlib

import brotli
import orjson
import pytest
from aiohttp import ClientSession, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from tests.simulator.examples import asked, body
from webapp.backends.openai_http import OpenAIHTTP
from webapp.core.errors import Outcome
from webapp.core.spec import BackendSpec, Limits, PromptSpec
from webapp.services.turns import LiveTurn, run_turn
from webapp.simulator.answers import load_book
from webapp.simulator.faults import FAULTS, Framing, find_fault
from webapp.simulator.faults_events import MANY_SCRIPTS
from webapp.simulator.server_body import read_body
from webapp.simulator.wire import DONE as END
from webapp.simulator.wire_framing import framing_of

LIMITS = Limits(first_byte_s=0.4, gap_s=0.4, total_s=60)  # for what is ended by a limit
HAIKU = load_book().find("haiku").text
DONE = "done"

# What our client makes of each: an error's kind, or "done".
ENDS = {
    "slow-first": "first_event_timeout",
    "401": "auth",
    "u4-403": "auth",
    "u5": "not_found",
    "u5-path": "not_found",
    "429": "rate_limited",
    "u6-date": "rate_limited",
    "u6-absent": "rate_limited",
    "u6-absurd": "rate_limited",
    "500": "http_status",
    "u7": "http_status",
    "503": "http_status",
    "u7-529": "http_status",
    "u8": "not_a_stream",
    "u8-html": "not_a_stream",
    "u9": "redirected",
    "u9-307": "redirected",
    "u9-308": "redirected",
    "hang": "first_byte_timeout",
    "silent": "first_event_timeout",
    "u11-comments": "first_event_timeout",
    "stall": "gap_timeout",
    "reset": "truncated",
    "truncate": "truncated",
    "u14-close": "truncated",
    "no-done": DONE,
    "linger": DONE,
    "error": "upstream_error",
    "u17-event": "upstream_error",
    "u18": DONE,
    "u18-many": "protocol",
    "garbage": DONE,
    "u19": DONE,
    "u19-noblank": DONE,
    "u20": DONE,
    "u20-cr": DONE,
    "u20-crlf": DONE,
    "u20-split": DONE,
    "u21": DONE,
    "u22": DONE,
    "u23": DONE,
    "u23-bytes": DONE,
    "u24": "gap_timeout",
    "u25": "too_large",
    "u25-body": "too_large",
    "u26": "encoding",
    "u26-deflate": "encoding",
    "u26-members": "encoding",
    "u26-br": "encoding",
    "u28": DONE,
    "u29": DONE,
    "u30": DONE,
    "u32": DONE,
    "u33": DONE,
    "u34-http10": DONE,
    "u34": DONE,
    "u34-type": DONE,
    "u34-notype": "not_a_stream",
    "u34-100": DONE,
    "u34-103": DONE,
}


async def turn_with(simulator: str, fault: str, slug: str = "quick") -> LiveTurn:
    limits = LIMITS if ENDS.get(fault, "").endswith("timeout") else Limits()
    spec = BackendSpec("x", "x", f"{simulator}/v1", f"{slug}+{fault}", limits=limits)
    turn = LiveTurn(spec, PromptSpec(({"role": "user", "content": "Write a haiku"},), max_tokens=200))
    client = OpenAIHTTP()
    try:
        await run_turn(turn, client)
    finally:
        await client.close()
    return turn


def test_every_fault_has_an_expected_end() -> None:
    assert set(ENDS) | {"u27"} == set(FAULTS)


@pytest.mark.parametrize("fault", ENDS)
async def test_a_fault_ends_as_it_should(simulator: str, fault: str) -> None:
    turn = await turn_with(simulator, fault)
    if ENDS[fault] == DONE:
        assert turn.error is None, turn.error
        assert turn.outcome is Outcome.DONE
    else:
        assert turn.error is not None
        assert turn.error.kind == ENDS[fault], turn.error.message


@pytest.mark.parametrize(
    "fault", ["u19", "u20", "u20-cr", "u20-crlf", "u20-split", "u23", "u23-bytes", "u29", "u32", "u34", "linger"]
)
async def test_odd_but_legal_streams_lose_nothing(simulator: str, fault: str) -> None:
    assert (await turn_with(simulator, fault)).text == HAIKU


async def test_split_characters_arrive_whole(simulator: str) -> None:
    inserted = orjson.loads(MANY_SCRIPTS[6:])["choices"][0]["delta"]["content"]
    text = (await turn_with(simulator, "u21")).text
    assert text.replace(inserted, "") == HAIKU
    assert inserted in text


def test_an_answer_may_be_forced_to_a_great_length_as_far_as_the_context_goes() -> None:
    request = asked("Write a haiku", model="flood+u27", max_tokens=5)
    assert (request.max_tokens, request.ignore_eos) == (100_000, True)
    assert asked("x" * 200_000, model="flood+u27").max_tokens == 131_072 - 50_000


@pytest.mark.parametrize("name", ["u12", "U12", "u012", "fault-u12", "stall"])
def test_a_fault_has_a_name_and_a_number(name: str) -> None:
    assert find_fault(name) is FAULTS["stall"]


@pytest.mark.parametrize("name", ["u1", "u99", "u4-nothing", "stal", "", "u12x"])
def test_what_is_not_in_the_table_is_no_fault(name: str) -> None:
    assert find_fault(name) is None


async def test_a_deaf_server_goes_on_when_the_client_has_closed_its_side(simulator: str) -> None:
    request = orjson.dumps(body("Write a haiku", model="quick+u32", stream=True))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(simulator.rpartition(":")[2]))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(request)
    writer.write(head + request)
    await reader.readuntil(b"content")
    writer.write_eof()
    await reader.readuntil(b"[DONE]")
    for _ in range(3):
        await reader.readuntil(b"This comes after the end.")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    ("model", "header", "slowly"), [("q+u33", "", True), ("q", "U33", True), ("q+stall", "u33", False)]
)
async def test_a_slow_reader_takes_a_long_prompt_piece_by_piece(model: str, header: str, *, slowly: bool) -> None:
    loop, pauses = asyncio.get_running_loop(), []
    content = StreamReader(BaseProtocol(loop), limit=2**20, loop=loop)
    parts = [orjson.dumps({"model": model, "messages": []}), b"x" * 200_000]
    request = make_mocked_request("POST", "/", payload=content)

    async def pause(seconds: float) -> None:
        if not pauses:
            content.feed_data(parts[1])
            content.feed_eof()
        pauses.append(seconds)

    content.feed_data(parts[0])
    if not slowly:
        content.feed_eof()
    found = await read_body(request, header, pause)
    assert found == b"".join(parts[: 1 + slowly])
    assert sum(pauses) == (pytest.approx(200_000 / 16_384, abs=0.5) if slowly else 0)


def test_every_numbered_case_that_a_server_can_act_out_is_in_the_table() -> None:
    not_a_servers = {1, 2, 3, 31}
    assert {number for number in range(1, 35) if find_fault(f"u{number}") is None} == not_a_servers


@pytest.mark.parametrize("framing", [Framing.NO_SPACE, Framing.CR, Framing.CRLF, Framing.MIXED, Framing.BYTES])
def test_a_framing_changes_no_data(framing: Framing) -> None:
    events = [b'data: {"a":%d}\n\n' % number for number in range(40)]
    framed = b"".join(framing_of(framing)(events))
    lines = [line.removeprefix(b"data:").strip() for line in re.split(rb"\r\n|\r|\n", framed) if line]
    assert lines == [event[6:].strip() for event in events]
    assert len(re.split(rb"\r\n|\r|\n", framed)) == 2 * len(events) + 1  # a blank line after each


class Inflate:
    """A decoder of deflate or gzip; a member after the first begins anew."""

    def __init__(self) -> None:
        self._new()

    def _new(self) -> None:
        self._decoder = zlib.decompressobj(wbits=47)  # either header

    def process(self, data: bytes) -> bytes:
        plain = self._decoder.decompress(data)
        while rest := self._decoder.unused_data:
            self._new()
            plain += self._decoder.decompress(rest)
        return plain

    def is_finished(self) -> bool:
        return self._decoder.eof


@pytest.mark.parametrize(
    ("framing", "decoder"),
    [
        (Framing.GZIP, Inflate),
        (Framing.DEFLATE, Inflate),
        (Framing.GZIP_MEMBERS, Inflate),
        (Framing.BROTLI, brotli.Decompressor),
    ],
)
def test_an_encoded_body_is_what_its_encoding_says_and_every_write_can_be_read_when_it_comes(
    framing: Framing, decoder: type
) -> None:
    events = [b'data: {"a":%d}\n\n' % number for number in range(40)]
    events += [b"data: " + b"x" * size + b"\n\n" for size in (65_527, 65_528, 65_529, 200_000)]  # 64 kB and around
    frame, reader = framing_of(framing), decoder()
    for event in events:
        assert b"".join(map(reader.process, frame([event]))) == event
    assert b"".join(map(reader.process, frame([events[0], END]))) == events[0] + END
    assert reader.is_finished()


async def test_a_body_in_an_encoding_nobody_asked_for_ends_in_one_plain_sentence_and_one_state(simulator: str) -> None:
    turn = await turn_with(simulator, "u26-br")
    assert turn.error is not None
    assert (turn.outcome, turn.error.permanent, turn.text) == (Outcome.ERROR, True, "")
    assert turn.error.message == "The backend compressed its stream (br) although asked not to."


async def test_a_brotli_body_holds_the_answer(client: ClientSession) -> None:
    request = body("Write a haiku", model="quick+u26-br", stream=True)
    async with client.post("/v1/chat/completions", json=request, auto_decompress=False) as response:
        assert response.headers["Content-Encoding"] == "br"
        events = brotli.decompress(await response.read()).split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    chunks = [orjson.loads(event[6:]) for event in events[:-2]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]) == HAIKU
