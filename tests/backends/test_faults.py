"""Every fault that an upstream can have, through a real turn over real sockets.

Five promises in every case: one ending in time, the text and the marks so far kept, nothing left open, one plain
sentence without secrets, and never DONE for an answer that was not whole.
"""

from __future__ import annotations

import asyncio
import ssl

import pytest

from tests.backends.conftest import CANARY
from tests.hostwatch import measurements
from tests.upstreams import EXPECTED, Expected, Upstream, closed_port, full_port, scripted_upstream, silent_port
from webapp.backends.openai_http import OpenAIHTTP
from webapp.core.errors import Outcome
from webapp.core.spec import BackendSpec, Limits, PromptSpec
from webapp.services.turns import LiveTurn, run_turn

SHORT = Limits(connect_s=0.5, write_s=0.5, first_byte_s=0.4, gap_s=0.4, total_s=30)
PATIENT = Limits(events=150_000)  # for what must not be ended by a limit on time, on a machine however busy
LATEST_S = 60.0  # only ends what hangs; most scenarios take a few ms
# Scenarios that wait for us to leave: their connection must be gone, not kept for the next request.
HELD = {name for name, expected in EXPECTED.items() if expected.outcome == "timeout"} | {
    "fault-u16",
    "fault-u16-open",
    "fault-u25",
    "fault-u25-body",
    "fault-u25-events",
    "fault-u32",
}
# What else must be in the sentence or the notes.
WORDS = {
    "fault-400": "maximum context length",
    "fault-422": "valid number",
    "fault-u04": "refused our key (401)",
    "fault-u05": "model does not exist",
    "fault-u06": "try again in 7 s",
    "fault-u06-absurd": "try again in a minute",
    "fault-u07": "(502), with an HTML page",
    "fault-u07-529": "(529)",
    "fault-u08": "not with a stream (application/json): “The model is overloaded”",
    "fault-u09": "redirected us (302)",
    "fault-u10": "said nothing for 0.4 s",
    "fault-u11": "sent no text for 0.4 s",
    "fault-u12": "fell silent for 0.4 s",
    "fault-u17": "The engine died",
    "fault-u17-plain": "out of memory",
    "fault-u26": "compressed its stream (gzip)",
    "fault-u26-br": "compressed its stream (br)",
    "real-transformers-5.23.0-unknown-field": "no_such_field",
}
NOTES = {
    "ok-nodone": ["no end marker ([DONE])"],
    "ok-zero": ["empty answer"],
    "fault-u15": ["no end marker ([DONE])"],
    "fault-u18": ["1 malformed event(s) skipped"],
    "fault-u19-tail": ["no end marker ([DONE])"],
    "fault-u28": ["empty answer"],
}


def turn_to(url: str, model: str, content: str = "Hi", limits: Limits = SHORT, key_ref: str = "env:CANARY") -> LiveTurn:
    spec = BackendSpec("x", "X", url, model, key_ref=key_ref, limits=limits)
    return LiveTurn(spec, PromptSpec(({"role": "user", "content": content},)))


async def run(turn: LiveTurn, client: OpenAIHTTP) -> LiveTurn:
    async with asyncio.timeout(LATEST_S):
        await run_turn(turn, client)
    return turn


def text_of(turn: LiveTurn, kind: str) -> str:
    return "".join(delta.text for delta in turn.meter.deltas if delta.kind == kind)


def assert_plain(sentence: str) -> None:
    """One printable sentence of bounded length that holds neither the key nor markup."""
    assert CANARY[:12] not in sentence
    assert "<script" not in sentence
    assert "secret" not in sentence
    assert sentence.isprintable()
    assert sentence[0].isupper() or sentence.startswith("127.0.0.1")
    assert sentence.endswith((".", "?"))
    assert len(sentence) < 500


def assert_in_order(turn: LiveTurn) -> None:
    marks = turn.marks
    times = [marks.intended, marks.connect, marks.connected, marks.sent, marks.headers, marks.first_event]
    times += [marks.first_token, *(delta.at_ns for delta in turn.meter.deltas), marks.last_token, marks.end]
    known = [ns for ns in times if ns is not None]
    assert known == sorted(known)
    assert marks.end is not None


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize(("name", "expected"), EXPECTED.items(), ids=EXPECTED.keys())
async def test_an_upstream_comes_to_one_ending_in_time_and_loses_nothing(
    name: str, expected: Expected, up: Upstream, client: OpenAIHTTP
):
    limits = SHORT if expected.outcome == "timeout" else PATIENT
    for measurement in measurements():
        number = len(up.requests)
        turn = await run(turn_to(up.url, name, limits=limits), client)
        with measurement:
            if expected.outcome == "timeout":
                assert 0.4 <= (turn.marks.end - turn.marks.intended) / 1e9 < 3
    kind = turn.error.kind if turn.error else ""
    assert (str(turn.outcome), kind) == (expected.outcome, expected.kind)
    assert text_of(turn, "content") == expected.text
    assert text_of(turn, "reasoning") == expected.reasoning
    assert_in_order(turn)
    if turn.outcome is Outcome.DONE:
        assert turn.notes == NOTES.get(name, turn.notes)
        counted = turn.meter.usage.completion_tokens if turn.meter.usage else None
        assert counted == expected.output_tokens
    else:
        assert turn.error is not None
        assert_plain(turn.error.message)
        assert WORDS.get(name, "") in turn.error.message
    assert len(up.requests) == number + 1  # nothing was sent again, or on to where a redirect points
    async with asyncio.timeout(LATEST_S):
        if name in HELD:
            await up.lost(number)
        await client.close()
        await up.lost(number)


def test_the_table_of_faults_is_the_table_that_is_tested():
    assert EXPECTED.keys() >= HELD | WORDS.keys() | NOTES.keys()
    assert {expected.outcome for expected in EXPECTED.values()} == {"done", "error", "timeout", "truncated"}


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize(
    ("name", "least_s", "most_s"),
    [
        ("fault-u06", 7, 7),
        ("fault-u06-date", 25, 31),
        ("fault-u06-absent", None, None),
        ("fault-u06-absurd", None, None),
    ],
)
async def test_a_rate_limit_hands_on_when_to_come_back(
    name: str, least_s: float | None, most_s: float | None, up: Upstream, client: OpenAIHTTP
):
    turn = await run(turn_to(up.url, name), client)
    assert turn.error is not None
    found = turn.error.retry_after_s
    assert found is None if least_s is None or most_s is None else found is not None and least_s <= found <= most_s


# Faults that are no answer


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_closed_port_refuses_at_once(host: str, client: OpenAIHTTP):
    with closed_port() as url:
        turn = await run(turn_to(url.replace("127.0.0.1", host), "ok"), client)
    assert turn.error is not None
    assert (turn.error.kind, turn.outcome) == ("refused", Outcome.ERROR)
    assert "not accepting connections" in turn.error.message
    assert turn.marks.sent is None
    assert turn.figures().ttft_ms is None


@pytest.mark.usefixtures("canary")
async def test_a_port_that_takes_nobody_ends_with_the_connect_limit(client: OpenAIHTTP):
    with full_port() as url:
        turn = await run(turn_to(url, "ok"), client)
    assert turn.error is not None
    assert (turn.error.kind, turn.outcome) == ("connect_timeout", Outcome.TIMEOUT)
    assert_plain(turn.error.message)


@pytest.mark.usefixtures("canary")
async def test_a_handshake_that_stalls_ends_with_the_connect_limit(client: OpenAIHTTP):
    with silent_port() as url:
        turn = await run(turn_to(url, "ok"), client)
    assert turn.error is not None
    assert (turn.error.kind, turn.outcome) == ("connect_timeout", Outcome.TIMEOUT)


@pytest.mark.usefixtures("canary")
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_prompt_that_is_never_read_ends_in_time(client: OpenAIHTTP):
    with silent_port("http") as url:
        turn = await run(turn_to(url, "ok", content="x" * (16 << 20)), client)
    assert turn.error is not None
    assert turn.outcome is Outcome.TIMEOUT
    assert_plain(turn.error.message)


WRONG_CERTIFICATES = {"self-signed": "self-signed", "expired": "expired", "wrong-host": "mismatch"}


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("certificate", WRONG_CERTIFICATES)
async def test_a_wrong_certificate_is_refused_and_said_to_be_one(certificate: str):
    async with scripted_upstream(certificate=certificate) as up:
        assert up.authority is not None
        client = OpenAIHTTP(tls=up.authority.trust())
        turn = await run(turn_to(up.url, "ok"), client)
        await client.close()
        assert up.requests == []  # and the key was not sent to it
    assert turn.error is not None
    assert (turn.error.kind, turn.error.permanent) == ("tls", True)
    assert WRONG_CERTIFICATES[certificate] in turn.error.message
    assert_plain(turn.error.message)


@pytest.mark.usefixtures("canary")
async def test_a_good_certificate_is_accepted_and_one_from_nobody_is_not():
    async with scripted_upstream(certificate="good") as up:
        assert up.authority is not None
        for tls, outcome in ((up.authority.trust(), Outcome.DONE), (ssl.create_default_context(), Outcome.ERROR)):
            client = OpenAIHTTP(tls=tls)
            turn = await run(turn_to(up.url, "ok"), client)
            await client.close()
            assert turn.outcome is outcome


async def test_a_key_that_is_not_there_ends_the_lane_before_anything_is_sent(
    up: Upstream, client: OpenAIHTTP, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("CANARY", raising=False)
    turn = await run(turn_to(up.url, "ok"), client)
    assert turn.error is not None
    assert (turn.error.kind, up.connections) == ("auth", 0)


async def test_a_backend_that_wants_a_key_where_none_is_set_is_not_said_to_have_refused_one(
    up: Upstream, client: OpenAIHTTP
):
    turn = await run(turn_to(up.url, "fault-u04", key_ref=""), client)
    assert turn.error is not None
    assert turn.error.message.startswith("The backend wants a key (401) and none is set; add one by reference")
    assert_plain(turn.error.message)


# Cancelling


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("name", ["fault-u10", "fault-u11", "fault-u12", "ok-role-first", "fault-u25-body", "ok-zero"])
@pytest.mark.parametrize("outcome", [Outcome.STOPPED, Outcome.INTERRUPTED])
async def test_cancelling_closes_the_upstream_at_once_and_is_no_failure(
    name: str, outcome: Outcome, up: Upstream, client: OpenAIHTTP
):
    turn = turn_to(up.url, name)
    turn.if_cancelled = outcome
    task = asyncio.create_task(run_turn(turn, client))
    await up.request()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert (turn.outcome, turn.error) == (outcome, None)
    assert turn.marks.end is not None
    async with asyncio.timeout(LATEST_S):
        request = await up.closed()
    assert request.closed_ns is not None
    assert len(up.requests) == 1
