"""The TCP side: a listening port and its connections, as Twisted's own with three habits added.

A connection sends at once when nothing waits before it (Twisted's habit costs two `epoll_ctl` calls and a turn of the
loop per message), keeps little unsent data in the kernel, and is cut off when its reader takes nothing for too long.
`Port.transport` is Twisted's documented place for a connection class of one's own.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp

from webapp.server.limits import ServerLimits

logger = logging.getLogger(__name__)


class Connection(tcp.Server):
    """One accepted connection.

    `waiting` is True while data waits for the kernel. `sent_bytes` counts what the kernel took.
    """

    def __init__(
        self, sock: socket.socket, protocol: Any, client: Any, server: "Port", sessionno: int, reactor: Any
    ) -> None:
        self.waiting = False
        self.sent_bytes = 0
        self._stall_s = server.limits.stall_s
        self._stall_mark = 0
        self._stall_watch: asyncio.TimerHandle | None = None
        tune(sock, server.limits)
        super().__init__(sock, protocol, client, server, sessionno, reactor)

    def write(self, data: bytes) -> None:
        """Send `data` now where nothing waits before it; the rest follows as the reader takes it."""
        if not self.waiting and self.connected and data:
            sent = self.writeSomeData(data)
            if sent == len(data):
                return
            if isinstance(sent, int):
                data = data[sent:]
            # An error is met again, and dealt with, when the reactor writes.
        super().write(data)

    def writeSomeData(self, data: bytes) -> Any:
        sent = super().writeSomeData(data)
        if isinstance(sent, int):
            self.sent_bytes += sent
        return sent

    def startWriting(self) -> None:
        self.waiting = True
        if self._stall_watch is None:
            self._watch_progress()
        super().startWriting()

    def stopWriting(self) -> None:
        self.waiting = False
        super().stopWriting()

    def connectionLost(self, reason: Any) -> None:
        if self._stall_watch is not None:
            self._stall_watch.cancel()
            self._stall_watch = None
        super().connectionLost(reason)

    def _watch_progress(self) -> None:
        # One timer at most, left to run out when the data has gone: arming one per write would cost more.
        self._stall_mark = self.sent_bytes
        self._stall_watch = asyncio.get_running_loop().call_later(self._stall_s, self._check_progress)

    def _check_progress(self) -> None:
        self._stall_watch = None
        if not self.waiting:
            return
        if self.sent_bytes != self._stall_mark:
            self._watch_progress()
            return
        logger.warning("A reader took nothing for %g s and was cut off: %s", self._stall_s, self.getPeer())
        self.abortConnection()


class Port(tcp.Port):
    """A listening port whose connections are ours."""

    transport = Connection

    def __init__(self, port: int, factory: Any, limits: ServerLimits, interface: str, reactor: Any) -> None:
        super().__init__(port, factory, backlog=limits.backlog, interface=interface, reactor=reactor)
        self.limits = limits


def tune(sock: socket.socket, limits: ServerLimits) -> None:
    """Set the socket options that streams of small messages need; each is skipped where the system lacks it."""
    options: list[tuple[Callable[[], int], int, int]] = [
        (lambda: socket.TCP_NODELAY, socket.IPPROTO_TCP, 1),
        # Little unsent data in the kernel: tokens stay fresh for a slow reader, and a stalled one costs little.
        (lambda: socket.TCP_NOTSENT_LOWAT, socket.IPPROTO_TCP, limits.unsent_bytes),
        # A host that vanished acknowledges nothing; Linux would try for 15 minutes.
        (lambda: socket.TCP_USER_TIMEOUT, socket.IPPROTO_TCP, int(limits.vanished_s * 1000)),
    ]
    for name, level, value in options:
        try:
            sock.setsockopt(level, name(), value)
        except (AttributeError, OSError):
            continue
