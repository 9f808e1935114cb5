"""What was measured here, held against the clock of a server that stamps its own writes, as our simulator does.

Only lengths of time are compared, each on one clock, so it does not matter whether the two processes share one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from webapp.core.timing import NS_PER_MS, Figures

BLOCK = "emitted"  # the name inside a server's own times


@dataclass(frozen=True, slots=True)
class Emitted:
    """When a server took a request and wrote its first and last text, ns of its own monotonic clock.

    `first_tokens` are those of the first piece of text; `late_ns` is by how much, at most, the server wrote a piece
    after its simulated time. On the wire: the block `emitted` of `time_info`.
    """

    arrived_ns: int
    first_ns: int
    last_ns: int
    first_tokens: int
    late_ns: int


@dataclass(frozen=True, slots=True)
class Truth:
    """The figures as the server's own stamps give them, and ours minus those. Milliseconds; None is "n/a".

    `ttft_off_ms` and `e2e_off_ms` hold both ways over the network, so they are above 0 by its delay; `tpot_off` is a
    share of `tpot_ms`, for which a steady delay cancels out. `late_ms` is in the server's figures as it is in ours:
    its host's lateness, not the simulated machine's.
    """

    ttft_ms: float
    tpot_ms: float | None
    e2e_ms: float
    ttft_off_ms: float | None
    tpot_off: float | None
    e2e_off_ms: float | None
    late_ms: float

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


def emitted(server_times: Mapping[str, Mapping[str, Any]]) -> Emitted | None:
    """Return the stamps among what a server says of its times, by vendor; None where there are none or they are odd."""
    for times in server_times.values():
        block = times.get(BLOCK)
        if isinstance(block, dict) and all(isinstance(block.get(name), int) for name in Emitted.__dataclass_fields__):
            found = Emitted(**{name: block[name] for name in Emitted.__dataclass_fields__})
            if found.arrived_ns <= found.first_ns <= found.last_ns and found.first_tokens > 0 <= found.late_ns:
                return found
    return None


def truth(stamps: Emitted, figures: Figures) -> Truth:
    """Return what the figures of a whole answer should have been, and by how much they are off."""
    ttft_ms = (stamps.first_ns - stamps.arrived_ns) / NS_PER_MS
    e2e_ms = (stamps.last_ns - stamps.arrived_ns) / NS_PER_MS
    later = (figures.output_tokens or 0) - stamps.first_tokens
    tpot_ms = (e2e_ms - ttft_ms) / later if later > 0 and e2e_ms > ttft_ms else None
    return Truth(
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
        e2e_ms=e2e_ms,
        ttft_off_ms=_minus(figures.ttft_ms, ttft_ms),
        tpot_off=figures.tpot_ms / tpot_ms - 1 if figures.tpot_ms and tpot_ms else None,
        e2e_off_ms=_minus(figures.e2e_ms, e2e_ms),
        late_ms=stamps.late_ns / NS_PER_MS,
    )


def _minus(ours: float | None, theirs: float) -> float | None:
    return None if ours is None else ours - theirs
