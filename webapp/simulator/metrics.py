"""What each model is doing now and has done: counted per step, shown in vLLM's names and as JSON.

A token costs nothing here; a step a few additions, an answer a few searches in a table of bounds.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from webapp.simulator.engine import Split, Step
from webapp.simulator.sequence import Timing

WINDOW_NS = 1_000_000_000
PARTS = tuple(name.removesuffix("_ns") for name in Split._fields)

# vLLM's own bounds (vllm/v1/metrics/loggers.py), and some below for machines that it does not run on.
TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
TPOT_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)


class Histogram:
    """Counts by upper bound, as Prometheus wants them."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Window:
    """What happened in about a second of simulated time."""

    __slots__ = ("began_ns", "busy_ns", "late_ns", "latest_ns", "parts_ns", "steps", "tokens")

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self.busy_ns = self.late_ns = self.latest_ns = self.steps = self.tokens = 0
        self.parts_ns = [0] * len(PARTS)


class Metrics:
    """The counts of one model since the start, and of the last full second."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.tokens = 0
        self.preemptions = 0
        self.parts_ns = [0] * len(PARTS)
        self.answers = {"stop": 0, "length": 0, "abort": 0}
        self.queue_s = Histogram(TTFT_S)
        self.ttft_s = Histogram(TTFT_S)
        self.tpot_s = Histogram(TPOT_S)
        self.last = Window(0)
        self._now = Window(0)

    def step(self, step: Step, late_ns: int) -> None:
        """Count a step that is handed out `late_ns` after its end."""
        window = self._now
        if step.ends_ns - window.began_ns >= WINDOW_NS:
            new = Window(step.began_ns)
            idle = step.began_ns - window.began_ns >= WINDOW_NS  # before this step: the window is of long ago
            self.last, self._now = new if idle else window, new
            window = new
        tokens = sum(count for _, count in step.emitted)
        window.tokens += tokens
        window.steps += 1
        window.busy_ns += step.ends_ns - step.began_ns
        window.late_ns += late_ns
        window.latest_ns = max(window.latest_ns, late_ns)
        self.tokens += tokens
        self.preemptions += len(step.preempted)
        for place, part_ns in enumerate(step.split):
            window.parts_ns[place] += part_ns
            self.parts_ns[place] += part_ns

    def answered(self, timing: Timing, reason: str, tokens: int) -> None:
        """Count an answer that has come to its end."""
        self.count(reason)
        self.queue_s.add(timing.times.queue_ns / 1e9)
        self.ttft_s.add(timing.first_ns / 1e9)
        if tokens > 1:
            self.tpot_s.add(timing.completion_ns / (tokens - 1) / 1e9)

    def count(self, reason: str) -> None:
        """Count an ending: "stop", "length", or "abort" where the client left."""
        self.answers[reason] += 1

    def recent(self, now_ns: int) -> Window:
        """Return the last full second; an empty one where nothing has happened for longer."""
        if self._idle(now_ns):
            return Window(now_ns)
        return self.last if self.last.steps else self._now

    def latest_ns(self, now_ns: int) -> int:
        """Return how late the latest step since the last full second began was handed out: asked once a second, none
        is missed.
        """
        return 0 if self._idle(now_ns) else max(self.last.latest_ns, self._now.latest_ns)

    def _idle(self, now_ns: int) -> bool:
        return now_ns - self._now.began_ns >= 2 * WINDOW_NS


class Source(Protocol):
    """A driver, as far as it shows."""

    metrics: Metrics

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    @property
    def kv_usage(self) -> float: ...


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    kind: str
    summary: str


_RUNNING = _Figure("vllm:num_requests_running", "gauge", "Requests that the engine is working on.")
_WAITING = _Figure("vllm:num_requests_waiting", "gauge", "Requests that wait for a slot or room in the KV cache.")
_KV = _Figure("vllm:kv_cache_usage_perc", "gauge", "Used share of the KV cache; 1 is full.")
_PREEMPTED = _Figure("vllm:num_preemptions", "counter", "Times a request lost its KV cache to another.")
_PROMPTS = _Figure("vllm:prompt_tokens", "counter", "Prompt tokens taken in.")
_TOKENS = _Figure("vllm:generation_tokens", "counter", "Tokens produced.")
_ANSWERS = _Figure("vllm:request_success", "counter", "Answers by the way they ended.")
_QUEUE = _Figure("vllm:request_queue_time_seconds", "histogram", "Time from the front end to a slot.")
_TTFT = _Figure("vllm:time_to_first_token_seconds", "histogram", "Simulated time from arrival to the first token.")
_TPOT = _Figure("vllm:request_time_per_output_token_seconds", "histogram", "Mean time of a token after the first.")
_PARTS = _Figure("sim:step_seconds", "counter", "Step time by what it went to.")
_LATE = _Figure("sim:late_seconds", "gauge", "How late this host handed out steps, worst of the last second or two.")


def prometheus(sources: Mapping[str, Source], now_ns: int) -> str:
    """Return the text exposition format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats)."""
    lines: list[str] = []

    def figure(one: _Figure, values: Iterable[tuple[str, float]]) -> None:
        suffix = "_total" if one.kind == "counter" else ""
        lines.extend((f"# HELP {one.name}{suffix} {one.summary}", f"# TYPE {one.name}{suffix} {one.kind}"))
        lines.extend(f"{one.name}{suffix}{{{labels}}} {value:.9g}" for labels, value in values)

    named = [(f'model_name="{slug}"', source) for slug, source in sources.items()]
    figure(_RUNNING, ((label, one.running) for label, one in named))
    figure(_WAITING, ((label, one.waiting) for label, one in named))
    figure(_KV, ((label, one.kv_usage) for label, one in named))
    figure(_PREEMPTED, ((label, one.metrics.preemptions) for label, one in named))
    figure(_PROMPTS, ((label, one.metrics.prompt_tokens) for label, one in named))
    figure(_TOKENS, ((label, one.metrics.tokens) for label, one in named))
    figure(
        _ANSWERS,
        (
            (f'{label},finished_reason="{reason}"', count)
            for label, one in named
            for reason, count in one.metrics.answers.items()
        ),
    )
    figure(
        _PARTS,
        (
            (f'{label},part="{part}"', total_ns / 1e9)
            for label, one in named
            for part, total_ns in zip(PARTS, one.metrics.parts_ns, strict=True)
        ),
    )
    figure(_LATE, ((label, one.metrics.latest_ns(now_ns) / 1e9) for label, one in named))
    for shape, pick in ((_QUEUE, "queue_s"), (_TTFT, "ttft_s"), (_TPOT, "tpot_s")):
        lines.extend((f"# HELP {shape.name} {shape.summary}", f"# TYPE {shape.name} histogram"))
        for label, one in named:
            lines.extend(_histogram(shape.name, label, getattr(one.metrics, pick)))
    return "\n".join(lines) + "\n"


def _histogram(name: str, label: str, histogram: Histogram) -> Iterable[str]:
    total = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        total += count
        yield f'{name}_bucket{{{label},le="{bound}"}} {total}'
    yield f"{name}_sum{{{label}}} {histogram.sum:.9g}"
    yield f"{name}_count{{{label}}} {total}"


def compact(sources: Mapping[str, Source], now_ns: int) -> dict[str, Any]:
    """Return what a page draws of each model: who runs and waits, and where the last second's steps went.

    `parts` are shares of the step time, 0 to 1; `late_ms` says how late this host was, which is no property of the
    simulated machine.
    """
    return {"at_ns": now_ns, "models": {slug: _one(source, now_ns) for slug, source in sources.items()}}


def _one(source: Source, now_ns: int) -> dict[str, Any]:
    recent = source.metrics.recent(now_ns)
    busy_ns, steps = sum(recent.parts_ns), recent.steps
    return {
        "running": source.running,
        "waiting": source.waiting,
        "kv_usage": round(source.kv_usage, 4),
        "tok_s": round(recent.tokens / (recent.busy_ns / 1e9), 1) if recent.busy_ns else 0.0,
        "step_ms": round(recent.busy_ns / steps / 1e6, 4) if steps else None,
        "parts": {name: round(part / (busy_ns or 1), 4) for name, part in zip(PARTS, recent.parts_ns, strict=True)},
        "late_ms": round(source.metrics.latest_ns(now_ns) / 1e6, 3),
        "tokens": source.metrics.tokens,
        "preemptions": source.metrics.preemptions,
        "answers": source.metrics.answers,
    }
