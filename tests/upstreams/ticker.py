"""Calls at absolute times of CLOCK_MONOTONIC, to within about 0.1 ms: one heap, one timerfd.

asyncio's own timers cannot do this: epoll_wait counts in milliseconds, so its loop rounds every delay up to the next.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import os
import struct
import time
from collections.abc import Callable

Call = Callable[[], int | None]

CLOCK_MONOTONIC = 1
TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
TFD_TIMER_ABSTIME = 1
CALLS_PER_TURN = 64  # so that new connections and departures are seen in between


class Ticker:
    """`at` names a time in ns and a call. What the call returns is its next time; None ends it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed; the reference stream needs Linux")
        self._heap: list[tuple[int, int, Call]] = []
        self._count = 0  # breaks ties, in order of arrival
        self._armed_ns = 0
        loop.add_reader(self._fd, self._tick)

    def at(self, due_ns: int, call: Call) -> None:
        self._count += 1
        heapq.heappush(self._heap, (due_ns, self._count, call))
        self._arm()

    def _tick(self) -> None:
        self._armed_ns = -1
        heap = self._heap
        for _ in range(CALLS_PER_TURN):
            if not heap or heap[0][0] > time.monotonic_ns():
                break
            _, count, call = heapq.heappop(heap)
            due_ns = call()
            if due_ns is not None:
                heapq.heappush(heap, (due_ns, count, call))
        self._arm()

    def _arm(self) -> None:
        """Set the timer to the earliest time, or off. One that is past fires at once.

        Setting a timerfd also takes back its readiness, which saves the read after each expiry.
        """
        first_ns = self._heap[0][0] if self._heap else 0
        if first_ns != self._armed_ns:
            self._armed_ns = first_ns
            seconds, ns = divmod(first_ns, 1_000_000_000)
            self._libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, struct.pack("4q", 0, 0, seconds, ns), None)
