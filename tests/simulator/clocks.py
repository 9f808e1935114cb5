"""A clock that stands still until it is moved, and the alarm that goes with it."""

from collections.abc import Callable


class FakeClock:
    """Monotonic ns that move only by `advance`, which rings the alarm where it is due on the way."""

    def __init__(self) -> None:
        self.at_ns = 1_000_000_000
        self.alarm_ns: int | None = None
        self.rung_ns: list[int] = []
        self.ring: Callable[[], None] = lambda: None
        self.closed = False

    def now_ns(self) -> int:
        return self.at_ns

    def make_alarm(self, loop: object, ring: Callable[[], None]) -> "FakeClock":
        self.ring = ring
        return self

    def set(self, at_ns: int) -> None:
        self.alarm_ns = at_ns

    def close(self) -> None:
        self.closed = True

    def advance(self, to_ns: int) -> None:
        while self.alarm_ns is not None and self.alarm_ns <= to_ns:
            self.at_ns, self.alarm_ns = max(self.at_ns, self.alarm_ns), None
            self.rung_ns.append(self.at_ns)
            self.ring()
        self.at_ns = to_ns
