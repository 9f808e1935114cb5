"""Flow control in both directions: a gate for what we send, a bounded inbox for what arrives. No sockets here."""

import asyncio
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

# An application whose reader is always ready would never give up the loop: `send` would never wait.
_SENDS_PER_TURN = 64


@implementer(IPushProducer)
class Gate:
    """Keeps senders waiting while the transport holds more than it wants.

    Registered with the transport as its push producer, it stands for the application: Twisted pauses it when its
    buffer is full (64 KiB) and resumes it when the buffer is empty.
    """

    def __init__(self, on_resume: Callable[[], None] | None = None) -> None:
        self._reopened: asyncio.Event | None = None  # only while closed: most connections never are
        self._on_resume = on_resume
        self._sends = 0

    @property
    def closed(self) -> bool:
        """True while the transport is paused."""
        return self._reopened is not None

    def pauseProducing(self) -> None:
        if self._reopened is None:
            self._reopened = asyncio.Event()

    def resumeProducing(self) -> None:
        self._reopen()
        if self._on_resume is not None:
            self._on_resume()

    def stopProducing(self) -> None:
        """Let every sender go: the connection is gone, and their applications have been told."""
        self._reopen()

    async def passed(self) -> None:
        """Return when the transport wants more, and after a turn of the loop from time to time."""
        self._sends += 1
        if self._reopened is not None:
            await self._reopened.wait()
        elif self._sends % _SENDS_PER_TURN == 0:
            await asyncio.sleep(0)

    def _reopen(self) -> None:
        if self._reopened is not None:
            self._reopened.set()
            self._reopened = None


class Inbox(asyncio.Queue[dict[str, Any]]):
    """An application's incoming messages. Never refuses one; says when it is crowded and when there is room again.

    `on_room` is called through the event loop once the inbox has become half empty after having been crowded.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        super().__init__()
        self.crowded = False
        self.on_room: Callable[[], None] | None = None
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._bytes = 0

    # `_put` and `_get` are the two methods that `asyncio.Queue` leaves to subclasses.

    def _put(self, item: dict[str, Any]) -> None:
        super()._put(item)
        self._bytes += _payload_bytes(item)
        if self._bytes >= self._max_bytes or self.qsize() >= self._max_messages:
            self.crowded = True

    def _get(self) -> dict[str, Any]:
        item = super()._get()
        self._bytes -= _payload_bytes(item)
        if self.crowded and self._bytes * 2 <= self._max_bytes and self.qsize() * 2 <= self._max_messages:
            self.crowded = False
            if self.on_room is not None:
                asyncio.get_running_loop().call_soon(self.on_room)
        return item


def _payload_bytes(message: dict[str, Any]) -> int:
    return len(message.get("text") or message.get("bytes") or b"")
