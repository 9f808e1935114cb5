"""Measures again where the host was busy meanwhile: bounds of lateness are about the code, not the host.

    for measurement in measurements():
        late_ms = ...
        with measurement:
            assert late_ms < 50

What misses a bound inside `with` on a host that had time for us fails at once. On a busy host it is measured again,
against the same bounds; what is too slow by itself misses them every time. All other assertions stand outside.

`Patience` is for what has to happen soon in another process: it counts no time in which the host held this one up.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

SLEEP_S = 0.001
HELD_UP_S = 0.01
WAITED_SHARE = 0.05  # of the time in which somebody on this host was ready to run and had no core
MOST_S = 60.0  # for measuring again
ROUND_S = 0.05  # the most that one look at what is waited for takes by itself
PRESSURE, STAT = Path("/proc/pressure/cpu"), Path("/proc/stat")
STEAL = 8  # the place of the ticks that the machine below gave to others, in the first line of STAT
TICK_S = 0.01


class HostWatch:
    """Whether this host was busy between `start` and `stop`.

    A thread that only sleeps tells by how much it overslept at most: a busy event loop does not hold it up, for the
    interpreter gives it its turn within 5 ms. Where the kernel tells, so does the time for which work had to wait.
    """

    def __init__(self) -> None:
        self.busy = False
        self._overslept_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> HostWatch:
        self._began_s, self._waited_s = time.monotonic(), waited_s()
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        waited_share = (waited_s() - self._waited_s) / (time.monotonic() - self._began_s)
        self.busy = self._overslept_s > HELD_UP_S or waited_share > WAITED_SHARE

    def _watch(self) -> None:
        end_s = self._began_s + MOST_S  # in case nobody stops it
        while not self._stop.is_set() and time.monotonic() < end_s:
            before_s = time.monotonic()
            time.sleep(SLEEP_S)
            self._overslept_s = max(self._overslept_s, time.monotonic() - before_s - SLEEP_S)


def waited_s() -> float:
    """Return for how long work on this host has waited for a core in all, 0 where the kernel does not tell."""
    try:
        some = re.search(r"some .*total=(\d+)", PRESSURE.read_text())
        steal = STAT.read_text().split("\n", 1)[0].split()[STEAL]
    except (OSError, IndexError):
        return 0.0
    return (int(some[1]) / 1e6 if some else 0.0) + int(steal) * TICK_S


class Measurement:
    """One try. Leaving it as a context in good order, or on a host that had time, ends the measuring."""

    def __init__(self, may_repeat: bool) -> None:
        self.over = False
        self._may_repeat = may_repeat
        self._host = HostWatch().start()

    def __enter__(self) -> None:
        self._host.stop()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        again = isinstance(error, AssertionError) and self._host.busy and self._may_repeat
        self.over = not again
        return again


def measurements(most_s: float = MOST_S) -> Iterator[Measurement]:
    """Yield one measurement after the other until its bounds are met or the host had time, for `most_s` at most."""
    end_s = time.monotonic() + most_s
    while True:
        measurement = Measurement(may_repeat=time.monotonic() < end_s)
        yield measurement
        if measurement.over:
            return


class Patience:
    """Seconds within which something has to happen, looked at again and again: `while not happened: … patience.left`.

    A round that took longer than ROUND_S was held up by the host, and counts no more than that.
    """

    def __init__(self, seconds: float) -> None:
        self._left_s = seconds
        self._before_s = time.monotonic()

    @property
    def left(self) -> bool:
        now_s = time.monotonic()
        self._left_s -= min(now_s - self._before_s, ROUND_S)
        self._before_s = now_s
        return self._left_s > 0
