"""Reads are stamped as they come and measured later; only what may decide something is measured at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gevent
import gevent.socket
import pytest

from loadtests.inbox import LONG_BYTES, Inbox
from webapp.clock import now_ns


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


TOKEN = chunk(b'data: {"choices":[{"delta":{"content":" word"}}]}\n\n')
DONE = chunk(b"data: [DONE]\n\n")


class Answer:
    """Takes everything down; over with [DONE], or with the end of the connection."""

    def __init__(self, begun: bool = True) -> None:
        self.begun = begun
        self.reads: list[tuple[bytes, int]] = []

    def take(self, data: bytes, at_ns: int) -> bool:
        if b"broken" in data:
            raise ValueError("no HTTP")
        self.reads.append((data, at_ns))
        return not data or b"[DONE]" in self.text

    @property
    def text(self) -> bytes:
        return b"".join(data for data, _ in self.reads)


class Reading:
    """An inbox that reads one end of a socket pair; `far` is the server's end."""

    def __init__(self, begun: bool = True) -> None:
        near, self.far = gevent.socket.socketpair()
        self.near = near
        self.answer = Answer(begun)
        self.inbox = Inbox(near, self.answer)
        self.reader = gevent.spawn(self.inbox.read)
        gevent.sleep(0)

    def close(self) -> None:
        self.reader.kill()
        self.near.close()
        self.far.close()

    def send(self, data: bytes) -> None:
        """Send, and wait until it has been read, and the turn of the loop is over in which it was."""
        before = len(self.inbox._kept) + len(self.answer.reads)
        self.far.sendall(data)
        until(lambda: len(self.inbox._kept) + len(self.answer.reads) > before)
        gevent.sleep(0.001)


def until(condition: Callable[[], bool]) -> None:
    with gevent.Timeout(60):
        while not condition():
            gevent.sleep(0.001)


@pytest.fixture
def reading() -> Iterator[Reading]:
    made = Reading()
    made.send(TOKEN)  # the first: what came before it is not known
    made.inbox.catch_up()
    yield made
    made.close()


def test_text_waits_and_keeps_the_time_at_which_it_was_read(reading: Reading) -> None:
    sent_ns = []
    for _ in range(3):
        sent_ns.append(now_ns())
        reading.send(TOKEN)
    assert len(reading.answer.reads) == 1
    asked_ns = now_ns()
    reading.inbox.catch_up()
    times_ns = [at_ns for _, at_ns in reading.answer.reads[1:]]
    assert [data for data, _ in reading.answer.reads] == [TOKEN] * 4
    assert all(a < b < c for a, b, c in zip(sent_ns, times_ns, [*sent_ns[1:], asked_ns], strict=True))


def test_everything_is_measured_at_once_up_to_the_first_token() -> None:
    early = Reading(begun=False)
    for count in range(1, 4):
        early.send(TOKEN)
        assert len(early.answer.reads) == count
    early.close()


@pytest.mark.parametrize("size", range(1, len(DONE)))
def test_an_end_is_seen_at_once_wherever_it_is_cut(reading: Reading, size: int) -> None:
    reading.send(TOKEN)
    reading.send(DONE[:size])
    reading.far.sendall(DONE[size:])
    reading.reader.get(timeout=60)
    assert reading.answer.text in (TOKEN * 2 + DONE[:size], TOKEN * 2 + DONE)


@pytest.mark.parametrize("data", [TOKEN[:-1], TOKEN * (LONG_BYTES // len(TOKEN) + 1), b"0\r\n\r\n"])
def test_half_an_event_and_much_text_and_the_end_of_a_body_do_not_wait(reading: Reading, data: bytes) -> None:
    reading.send(data)
    assert reading.answer.text == TOKEN + data


def test_the_end_of_the_connection_ends_the_reading(reading: Reading) -> None:
    reading.send(TOKEN)
    reading.far.close()
    reading.reader.get(timeout=60)
    assert reading.answer.reads[-1][0] == b""


def test_what_is_no_answer_is_raised_where_the_reading_began(reading: Reading) -> None:
    reading.send(TOKEN)
    reading.far.sendall(b"broken")
    with pytest.raises(ValueError, match="no HTTP"):
        reading.reader.get(timeout=60)
    assert reading.answer.text == TOKEN * 2


def test_closed_from_outside_it_raises_and_what_had_arrived_is_measured(reading: Reading) -> None:
    reading.send(TOKEN)
    reading.inbox.close()
    with pytest.raises(ConnectionAbortedError):
        reading.reader.get(timeout=60)
    assert reading.answer.text == TOKEN * 2
    assert reading.far.recv(1) == b""


def test_a_user_who_is_taken_away_leaves_nothing_unmeasured(reading: Reading) -> None:
    reading.send(TOKEN)
    reading.reader.kill()
    assert reading.answer.text == TOKEN * 2
