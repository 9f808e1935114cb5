"""Reading a socket with as little as can be done per wake-up: read, look at the clock, keep. Measuring comes later.

A token of one stream among many costs a wake-up, and what runs in it has gone cold in the processor's caches since the
last. Measuring a chunk there takes some 20 µs, and 3 µs where many are measured in a row. So a callback of the event
loop reads and stamps, and what is plain text waits until somebody calls `catch_up`, some twenty times a second. The
user's greenlet sleeps through it all.
"""

from __future__ import annotations

from typing import Protocol

import gevent.socket  # type: ignore[import-untyped]
from gevent.event import Event  # type: ignore[import-untyped]

from webapp.clock import now_ns

READ_BYTES = 65_536
LONG_BYTES = 4_096  # a longer read holds many chunks already
_READABLE = 1  # libev's EV_READ
_WHOLE = b"\n\n\r\n"  # an event's end, and that of the HTTP chunk around it
_END = b"[DONE]"


class Answer(Protocol):
    """What is read. `begun` says whether its first token has come; `take(data, at_ns)` measures a read that arrived at
    `at_ns` (ns of the generator's clock), b"" for the end of the connection, and returns whether the answer is over.
    """

    @property
    def begun(self) -> bool: ...

    def take(self, data: bytes, at_ns: int) -> bool: ...


class Inbox:
    """Reads a socket to the end of an answer. What comes up to the first token, and whatever may be an answer's end,
    is taken in the same turn of the loop.
    """

    def __init__(self, sock: gevent.socket.socket, answer: Answer) -> None:
        self._sock, self._answer = sock, answer
        self._recv = sock._sock.recv  # gevent's own, which would wait, adds a fifth to the price of a wake-up
        self._kept: list[tuple[bytes, int]] = []
        self._begun = False
        self._between = False  # whether the last read ended between two events
        self._loop = gevent.get_hub().loop
        self._watcher = self._loop.io(sock.fileno(), _READABLE)
        self._over = Event()
        self._error: Exception | None = None

    def read(self) -> None:
        """Return when the answer is over. Raises what reading or taking raised; a kill leaves nothing untaken."""
        self._watcher.start(self._on_readable)
        try:
            self._over.wait()
        finally:
            self.catch_up()
            self._watcher.stop()
            self._watcher.close()
        if self._error is not None:
            raise self._error

    def catch_up(self) -> None:
        """Take what has been read so far."""
        if not self._kept:
            return
        kept, self._kept = self._kept, []
        try:
            for data, at_ns in kept:
                if self._answer.take(data, at_ns):
                    self._end()
                    return
            self._begun = self._answer.begun
        except Exception as error:  # raised where the reading was begun
            self._end(error)

    def close(self) -> None:
        """End the reading from outside, and the connection with it."""
        self.catch_up()
        self._end(ConnectionAbortedError("closed"))
        self._sock.close()

    def _on_readable(self) -> None:
        try:
            data = self._recv(READ_BYTES)
            at_ns = now_ns()
        except BlockingIOError:
            return
        except OSError as error:
            self.catch_up()
            self._end(error)
            return
        self._kept.append((data, at_ns))
        if not self._can_wait(data):
            self._loop.run_callback(self.catch_up)  # once all sockets that have something have been read

    def _can_wait(self, data: bytes) -> bool:
        """Whether this read holds whole events and nothing that may be an answer's end."""
        between, self._between = self._between, data.endswith(_WHOLE)
        whole = between and self._between
        return whole and len(data) < LONG_BYTES and _END not in data and self._begun

    def _end(self, error: Exception | None = None) -> None:
        """Let `read` return or raise; only the first ending counts."""
        if not self._over.is_set():
            self._error = error
            self._watcher.stop()  # at once: whose connection it is next may be decided before `read` goes on
            self._over.set()
