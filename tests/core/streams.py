"""Answers with known arrival times, measured: what the tests of the meter and of the figures are made of."""

from __future__ import annotations

from typing import Any

from tests.upstreams.wire import DONE, chunk, event
from webapp.core.meter import StreamMeter
from webapp.core.spec import Limits
from webapp.core.timing import Marks

NS_PER_MS = 1_000_000
SENT_NS = 1_000_000_000  # a clock that does not begin at 0: nothing may depend on that


def at(ms: float) -> int:
    """Return the instant `ms` after the request was sent."""
    return SENT_NS + round(ms * NS_PER_MS)


def said(delta: dict[str, Any] | None, **rest: Any) -> bytes:
    return event(chunk(delta, **rest))


ROLE = said({"role": "assistant", "content": ""})
STOP = said({}, finish="stop")
END = STOP + DONE


def measured(*reads: tuple[float, bytes], limits: Limits | None = None) -> StreamMeter:
    """Return the meter that was given these (ms after sending, bytes), not finished yet."""
    meter = StreamMeter(Marks(intended=SENT_NS, sent=SENT_NS), limits or Limits())
    for ms, data in reads:
        meter.receive(data, at(ms))
    return meter
