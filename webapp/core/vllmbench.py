"""Results in the shape of `vllm bench serve --save-result`, so that what reads those files can plot ours.

One object per backend. The names are vLLM's; the definitions are ours, which differ in one point: TTFT is the first
text, not the first message. Standard deviations are taken from histograms, within their one per cent. What is not
known, a percentile of too few samples among it, is null: vLLM would write 0, which meets any limit.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import sqrt
from typing import Any

import orjson

from webapp.core.histogram import Histogram
from webapp.core.loadplan import Plan
from webapp.core.loadstats import LoadStats

FIGURES = {"ttft": "ttft", "tpot": "tpot", "itl": "icl", "e2el": "e2e"}


def results(plan: Plan, stats: LoadStats, measured_s: float, started_at: float) -> bytes:
    """Return one line per backend, as `vllm bench serve --append-result` writes them; `started_at` is Unix time, s."""
    date = datetime.fromtimestamp(started_at, UTC).strftime("%Y%m%d-%H%M%S")
    found = [_result(plan, stats, place, measured_s, date) for place in range(len(plan.targets))]
    return b"".join(orjson.dumps(one) + b"\n" for one in found)


def _result(plan: Plan, stats: LoadStats, place: int, measured_s: float, date: str) -> dict[str, Any]:
    target = plan.targets[place]
    backend = stats.backend(target.slug)
    inputs, outputs = (_total(backend.histogram(name)) for name in ("input_tokens", "output_tokens"))
    per_s = 1 / measured_s if measured_s > 0 else 0.0
    flow = backend.tokens_in_window * per_s
    open_loop = plan.mode == "rate"
    found: dict[str, Any] = {
        "date": date,
        "backend": "openai-chat",
        "label": target.slug,
        "model_id": target.model,
        "num_prompts": backend.asked,
        "request_rate": plan.schedule.most() if open_loop else "inf",
        "burstiness": _burstiness(plan),
        "max_concurrency": None if open_loop else plan.most_users,
        "duration": measured_s,
        "completed": backend.ok,
        "failed": backend.failed,
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": backend.ended * per_s,
        "request_goodput": backend.ended_good * per_s if stats.slo else None,
        "output_throughput": flow,
        "total_token_throughput": None if inputs is None else flow + inputs * per_s,
    }
    for name, figure in FIGURES.items():
        histogram = backend.histogram(figure)
        summary = histogram.summary_of_gaps() if figure == "icl" else histogram.summary()
        spread = deviation(histogram)
        found[f"mean_{name}_ms"] = summary["mean"]
        found[f"median_{name}_ms"] = summary["p50"]
        found[f"std_{name}_ms"] = None if spread is None else spread / 1e6
        for percent in (90, 95, 99):
            found[f"p{percent}_{name}_ms"] = summary[f"p{percent}"]
    return found


def deviation(histogram: Histogram) -> float | None:
    """Return the standard deviation of a histogram's values, from the middles of its buckets."""
    mean = histogram.mean
    if mean is None:
        return None
    squares = sum(count * ((low + high - 1) / 2 - mean) ** 2 for low, high, count in histogram.bars())
    return sqrt(squares / histogram.n)


def _total(histogram: Histogram) -> int | None:
    return histogram.total if histogram.n else None


def _burstiness(plan: Plan) -> float | str:
    """Return the shape of vLLM's gamma gaps: 1 is Poisson's, even gaps have "inf", written as its request rate is."""
    return "inf" if plan.schedule.kind == "constant" else 1 / plan.schedule.cv**2
