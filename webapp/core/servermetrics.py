"""What a model server says of itself at /metrics: requests running and waiting, KV cache in use, tokens produced.

The names are vLLM's (vllm/v1/metrics/loggers.py), which our simulator uses too; one, how late its host was, is the
simulator's own. A server counts everything that it does, for other clients as well.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from webapp.core.generator import FLOOR_NS
from webapp.core.timing import NS_PER_MS

_SAMPLE = re.compile(
    r"^(?:vllm|sim):"
    r"(num_requests_running|num_requests_waiting|kv_cache_usage_perc|generation_tokens_total|late_seconds)"
    r"\{([^}]*)\} ([-+.\deE]+)$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class ServerState:
    """One model on one server at one moment. `kv_usage` is a share, `output_tokens` all since the server's start,
    `late_ms` by how much a simulator was behind its own schedule lately, at most.
    """

    running: int
    waiting: int
    kv_usage: float | None = None
    output_tokens: int | None = None
    late_ms: float | None = None

    @property
    def in_flight(self) -> int:
        return self.running + self.waiting

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def read(text: str, model: str) -> ServerState | None:
    """Return the state of `model` from Prometheus text, summed over its engines (KV usage: the fullest); None where
    the text does not tell of it."""
    found: dict[str, list[float]] = {}
    label = f'model_name="{model}"'
    for name, labels, value in _SAMPLE.findall(text):
        if label in labels:
            found.setdefault(name, []).append(float(value))
    if not {"num_requests_running", "num_requests_waiting"} <= set(found):
        return None
    tokens = found.get("generation_tokens_total")
    return ServerState(
        running=round(sum(found["num_requests_running"])),
        waiting=round(sum(found["num_requests_waiting"])),
        kv_usage=max(found["kv_cache_usage_perc"]) if "kv_cache_usage_perc" in found else None,
        output_tokens=None if tokens is None else round(sum(tokens)),
        late_ms=max(found["late_seconds"]) * 1000 if "late_seconds" in found else None,
    )


@dataclass(slots=True)
class ServerWatch:
    """What was seen of one server during a run, beside what the generator itself had in flight at the same moments."""

    first: ServerState | None = None
    last: ServerState | None = None
    looks: int = 0
    beyond: int = 0  # requests in flight at the server that the generator does not wait for, summed over all looks
    most_waiting: int = 0
    most_kv_usage: float | None = None
    most_late_ms: float | None = None

    def see(self, state: ServerState, ours_in_flight: int) -> None:
        self.first = self.first or state
        self.last = state
        self.looks += 1
        self.beyond += state.in_flight - ours_in_flight
        self.most_waiting = max(self.most_waiting, state.waiting)
        if state.kv_usage is not None:
            self.most_kv_usage = max(self.most_kv_usage or 0.0, state.kv_usage)
        if state.late_ms is not None:
            self.most_late_ms = max(self.most_late_ms or 0.0, state.late_ms)

    def warnings(self) -> list[str]:
        """Return why the latencies may be those of the server's host, each as one sentence."""
        late_ms = self.most_late_ms or 0.0
        if late_ms * NS_PER_MS <= FLOOR_NS:
            return []
        return [f"The simulator ran up to {late_ms:.0f} ms behind its schedule: its host's lateness, not the model's."]

    def summary(self, delivered_tokens: int, left: int, seconds: float) -> dict[str, Any] | None:
        """Return the `server` block of a summary; None where the server tells nothing.

        `unread_tokens` are those that it produced and nobody of the run has received (`delivered_tokens`). `held_ms` is
        for how long, on average, it went on with a request after its user had left: by Little's law the mean number of
        requests that nobody waited for, times `seconds`, over the `left` users. Both count other clients' requests too.
        """
        if self.first is None or self.last is None:
            return None
        before, after = self.first.output_tokens, self.last.output_tokens
        produced = None if before is None or after is None or after < before else after - before
        held_s = max(0.0, self.beyond / self.looks) * seconds / left if left else None
        return {
            "output_tokens": produced,
            "unread_tokens": None if produced is None else max(0, produced - delivered_tokens),
            "held_ms": None if held_s is None else round(held_s * 1000, 1),
            "most_waiting": self.most_waiting,
            "most_kv_usage": self.most_kv_usage,
            "most_late_ms": None if self.most_late_ms is None else round(self.most_late_ms, 1),
        }
