"""How late the event loop runs, so that a busy host shows in the data instead of passing for a slow backend."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from webapp.clock import now_ns
from webapp.core.stats import percentile

PERIOD_S = 0.01
KEPT = 60_000  # ten minutes of samples


class LoopLag:
    """Sleeps for 10 ms over and over while anything is being measured, and keeps by how much it woke late."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque(maxlen=KEPT)
        self._users = 0
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sample while the block runs; blocks may overlap."""
        self._users += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._sample())
        try:
            yield
        finally:
            self._users -= 1

    def p99_ns(self, from_ns: int, to_ns: int) -> int | None:
        """Return the 99th percentile of lateness between two instants, None where nothing was sampled."""
        late = []
        for at_ns, lag_ns in reversed(self._samples):
            if at_ns < from_ns:
                break
            if at_ns <= to_ns:
                late.append(lag_ns)
        return int(percentile(sorted(late), 99)) if late else None

    async def _sample(self) -> None:
        while self._users:
            before_ns = now_ns()
            await asyncio.sleep(PERIOD_S)
            after_ns = now_ns()
            self._samples.append((after_ns, max(0, after_ns - before_ns - round(PERIOD_S * 1e9))))


loop_lag = LoopLag()
