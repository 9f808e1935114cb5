"""Ctrl-C and SIGTERM in commands that measure: an end in order, one sentence, and the exit code that shells expect."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from django.core.management import CommandError

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Takes the signals while it is entered. `number` is the first that came, 0 while none has.

    Inside of `stopping` the first one asks for an end and whoever runs there sees to it; afterwards it is only noted,
    so that what was measured is still printed. Before, and the second time, it ends the command where it is.
    """

    def __init__(self) -> None:
        self.number = 0
        self._obey: Callable[[], object] = _leave

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._take) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.number and isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
            raise self.end("its job is not done") from None

    @contextmanager
    def stopping(self, stop: Callable[[], object]) -> Iterator[None]:
        """Have the first signal call `stop` on the running event loop."""
        loop = asyncio.get_running_loop()
        self._obey = lambda: loop.call_soon_threadsafe(stop)
        try:
            yield
        finally:
            self._obey = _note

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on an event loop of its own and return its result; the first signal cancels it."""

        async def cancellable() -> T:
            task = asyncio.current_task()
            assert task is not None
            with self.stopping(task.cancel):
                return await work

        return asyncio.run(cancellable())

    def end(self, what: str) -> CommandError:
        """Return the command's end: which signal it was and, in half a sentence, `what` had been done."""
        return CommandError(f"Ended by {signal.Signals(self.number).name}: {what}.", returncode=128 + self.number)

    def _take(self, number: int, _: FrameType | None) -> None:
        again, self.number = bool(self.number), self.number or number
        if again:
            _leave()
        self._obey()


def _leave() -> None:
    raise KeyboardInterrupt


def _note() -> None:
    """For a signal that comes when nothing is left to stop."""
