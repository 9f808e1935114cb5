"""The single writer: every row of a measurement is written by one thread, outside the event loop, in order.

Streams never wait for the database. While it is locked, down or full, rows wait here and `delayed` says so; they are
written when it is back. Nothing is dropped before `MAX_WAITING`, beyond which the oldest give way and are counted.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable

from django.db import InterfaceError, OperationalError, close_old_connections, connection

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)

Write = Callable[[], None]


class Writer:
    """Runs `Write` callables one after the other in a daemon thread of its own, started by the first of them."""

    def __init__(self) -> None:
        self._waiting: deque[Write] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False
        self.delayed = False
        self.lost = 0

    def submit(self, write: Write) -> None:
        """Have `write` run soon, after all that were submitted before. Never blocks on the database."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
                self._thread.start()
            if len(self._waiting) >= MAX_WAITING:
                self._waiting.popleft()
                self.lost += 1
            self._waiting.append(write)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything submitted is written; False where that took longer than `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    async def flushed(self, timeout_s: float) -> bool:
        """The same from the event loop."""
        return await asyncio.to_thread(self.flush, timeout_s)

    @property
    def backlog(self) -> int:
        return len(self._waiting)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._waiting))
                write = self._waiting.popleft()
                self._busy = True
            self._write(write)

    def _write(self, write: Write) -> None:
        attempt = 0
        while True:
            try:
                close_old_connections()
                write()
                self.delayed = False
                return
            except (OperationalError, InterfaceError) as error:  # locked, down, full: it can come back
                connection.close()
                if attempt == 0:
                    log.warning("saving is delayed: %s", error)
                self.delayed = True
                threading.Event().wait(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1
            except Exception:  # a row that cannot be written must not stop the rows behind it
                self.lost += 1
                log.exception("a row could not be written")
                return


writer = Writer()
