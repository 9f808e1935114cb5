"""Call things at their due time, to a fraction of a millisecond, however many there are.

One heap of absolute deadlines on the monotonic clock and one alarm for its earliest. asyncio's own timers
have steps of 1 ms, and relative sleeps drift (3 to 4 % at 50 tokens/s, two thirds of a pace of 2,500
lost), so the alarm is a Linux timerfd in the event loop, or a helper thread where there is none.
What falls due within FLOOR_NS of a tick goes out together at its end, which costs half the CPU at many streams. The
alarm rings before the time, by as long as this host takes to wake us (60 µs and more on a virtual machine, and never
the same), at once where that is longer than there is; the rest is awaited awake. Nothing accumulates: a late tick
sends everything that is due.
"""

import asyncio
import ctypes
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

FLOOR_NS = 100_000
# At most. Longer than the 400 µs between tokens at 2,500 tokens/s: where wake-ups are that late such a stream does not
# sleep, for a virtual machine's host takes away a core that does. It then costs 0.9 of a core, a demo's four lanes 0.1.
# Measured in turn on such a host, the farther of p1 and p99 of the gaps, median and worst of eight: 2.3 and 5.7 % off;
# 4.7 and 123 % where it slept 100 µs all the same and forgot in 140 ms.
LEAD_NS = 450_000
LEAD_DECAY = 0.9999  # a tick: one that is later than most buys 1,700 ticks without sleep at that pace

Fire = Callable[[int], int | None]
"""Called with the time; returns when it wants to be called again (ns), None when it is over."""

_log = logging.getLogger(__name__)


class Alarm(Protocol):
    """Something that calls back once at a monotonic time."""

    def set(self, at_ns: int) -> None:
        """Ring at `at_ns` instead of whenever it was set to."""

    def close(self) -> None:
        """Never ring again."""


@dataclass(slots=True)
class Appointment:
    """One entry of the heap; without a `fire` it is over, or called off."""

    fire: Fire | None


class Pacer:
    """The heap. Belongs to one event loop and is used from its thread only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make_alarm: "Callable[[asyncio.AbstractEventLoop, Callable[[], None]], Alarm] | None" = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
        floor_ns: int = FLOOR_NS,
        most_lead_ns: int = 0,
    ) -> None:
        self.now_ns = now_ns
        self._floor_ns = floor_ns
        self._most_lead_ns = most_lead_ns
        self._lead_ns = 0
        self._heap: list[tuple[int, int, Appointment]] = []
        self._order = 0  # ties in due time go by age; also keeps appointments from being compared
        self._armed_ns: int | None = None
        self._earliest_ns = 0
        self._alarm = (make_alarm or system_alarm)(loop, self.tick)

    def call(self, at_ns: int, fire: Fire) -> Appointment:
        """Call `fire` at `at_ns` and then whenever it asks, until it is over or the appointment's `fire` is None."""
        appointment = Appointment(fire)
        self._push(at_ns, appointment)
        self._arm()
        return appointment

    def tick(self) -> None:
        """Call everything that is due and set the alarm for the next."""
        self._learn_lead()
        limit_ns = self._awaited_ns()
        while self._heap and self._heap[0][0] <= limit_ns:
            appointment = heappop(self._heap)[2]
            if appointment.fire is None:
                continue
            try:
                again_ns = appointment.fire(self.now_ns())
            except Exception:  # one model's trouble is not its neighbours'
                _log.exception("what was due failed, and is not called again")
                again_ns = None
            if again_ns is None:
                appointment.fire = None
            else:
                self._push(max(again_ns, limit_ns + 1), appointment)
        self._earliest_ns = self.now_ns() + self._floor_ns
        self._arm()

    def _learn_lead(self) -> None:
        """Wake up the next times by as much earlier as this time was late, and a quarter more; by the most, at most.

        The latest wake-up of the last few thousand counts, not the last: what is to be met is the tail.
        """
        if self._armed_ns is not None:
            wanted_ns = min((self.now_ns() - self._armed_ns) * 5 // 4, self._most_lead_ns)
            self._lead_ns = max(int(self._lead_ns * LEAD_DECAY), wanted_ns)
        self._armed_ns = None

    def _awaited_ns(self) -> int:
        """Return the time, once the earliest appointment is due if it is within the lead."""
        now_ns = self.now_ns()
        if self._heap and self._heap[0][0] - now_ns <= self._lead_ns:
            while now_ns < self._heap[0][0]:
                now_ns = self.now_ns()
        return now_ns

    def close(self) -> None:
        """Call nobody any more."""
        self._alarm.close()
        self._heap.clear()

    def _push(self, due_ns: int, appointment: Appointment) -> None:
        self._order += 1
        heappush(self._heap, (due_ns, self._order, appointment))

    def _arm(self) -> None:
        if not self._heap:
            return
        due_ns = self._heap[0][0]
        at_ns = max(due_ns - self._lead_ns, self.now_ns()) if due_ns > self._earliest_ns else self._earliest_ns
        if self._armed_ns is None or at_ns < self._armed_ns:
            self._armed_ns = at_ns
            self._alarm.set(at_ns)


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class TimerfdAlarm:
    """A kernel timer that the event loop waits for like a socket. Raises OSError where there is none."""

    _ABSTIME = 1  # TFD_TIMER_ABSTIME, <sys/timerfd.h>

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            create, self._settime = libc.timerfd_create, libc.timerfd_settime
        except (AttributeError, OSError, TypeError):
            raise OSError("no timerfd on this system") from None
        self._fd: int = create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._ring = ring
        self._loop = loop
        self._spec = _Itimerspec()
        self._spec_pointer = ctypes.byref(self._spec)
        try:
            loop.add_reader(self._fd, self._ready)
        except NotImplementedError:
            os.close(self._fd)
            raise OSError("this event loop cannot wait for a file") from None

    def set(self, at_ns: int) -> None:
        self._spec.value.sec, self._spec.value.nsec = divmod(max(at_ns, 1), 1_000_000_000)
        if self._settime(self._fd, self._ABSTIME, self._spec_pointer, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _ready(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set again between the wake-up and here
            return
        self._ring()


class ThreadAlarm:
    """A thread that sleeps until the time and calls into the loop, for systems without timerfd."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._at_ns: int | None = None
        self._open = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._wait, name="pacing", daemon=True)
        self._thread.start()

    def set(self, at_ns: int) -> None:
        with self._changed:
            self._at_ns = at_ns
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _wait(self) -> None:
        with self._changed:
            while self._open:
                if self._at_ns is None:
                    self._changed.wait()
                elif (left_ns := self._at_ns - time.monotonic_ns()) > 0:
                    self._changed.wait(left_ns / 1e9)
                else:
                    self._at_ns = None
                    self._call()

    def _call(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ring)
        except RuntimeError:  # the loop closed first
            self._open = False


def system_alarm(loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> Alarm:
    """Return the best alarm that this system has."""
    try:
        return TimerfdAlarm(loop, ring)
    except OSError:
        _log.info("no timerfd: pacing with a helper thread")
        return ThreadAlarm(loop, ring)


def monotonic_ns() -> int:
    """Return the clock that everything here is due by, for whoever measures from outside."""
    return time.monotonic_ns()


def wall_s() -> float:
    """Return the time of day in seconds since 1970, for the `created` field only."""
    return time.time()
