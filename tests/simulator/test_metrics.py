import re

import pytest

from webapp.simulator.costs import Split
from webapp.simulator.engine import RequestTimes, Step
from webapp.simulator.metrics import TTFT_S, Histogram, Metrics, compact, prometheus
from webapp.simulator.sequence import Timing

MS = 1_000_000
SPLIT = Split(4 * MS, 3 * MS, 2 * MS, 0, 1 * MS, 0)


class Source:
    """A driver, as far as it shows."""

    running = 3
    waiting = 2
    kv_usage = 0.25

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics


def busy(steps: int, late_ns: int = 0) -> Metrics:
    """Count steps of 10 ms, each of them two tokens, from time 0 on."""
    metrics = Metrics()
    for number in range(steps):
        began_ns = number * 10 * MS
        emitted = ((1, 1), (2, 1))
        metrics.step(Step(began_ns, began_ns + 10 * MS, emitted, (), (), (), (7,), SPLIT), late_ns)
    return metrics


def test_the_last_second_says_where_the_steps_went() -> None:
    shown = compact({"m": Source(busy(250))}, 2500 * MS)["models"]["m"]
    assert shown["parts"] == {
        "overhead": 0.4,
        "weights": 0.3,
        "kv": 0.2,
        "prefill": 0.0,
        "communication": 0.1,
        "sequences": 0.0,
    }
    assert shown["step_ms"] == 10
    assert shown["tok_s"] == 200
    assert shown["tokens"] == 500
    assert (shown["running"], shown["waiting"], shown["kv_usage"]) == (3, 2, 0.25)


def test_an_idle_model_shows_nothing_of_long_ago() -> None:
    shown = compact({"m": Source(busy(250))}, 60_000 * MS)["models"]["m"]
    assert shown["tok_s"] == 0
    assert shown["step_ms"] is None
    assert set(shown["parts"].values()) == {0.0}
    assert shown["tokens"] == 500


def test_the_first_second_shows_what_there_is() -> None:
    assert compact({"m": Source(busy(5))}, 50 * MS)["models"]["m"]["tok_s"] == 200


def test_lateness_is_shown_as_the_hosts() -> None:
    shown = compact({"m": Source(busy(250, late_ns=7 * MS))}, 2500 * MS)["models"]["m"]
    assert shown["late_ms"] == 7


def test_a_late_step_is_shown_at_once_for_a_second_at_least_and_not_after_a_pause() -> None:
    metrics = Metrics()

    def step(began_ms: int, late_ms: int = 0) -> None:
        split = Split(10 * MS, 0, 0, 0, 0, 0)
        metrics.step(Step(began_ms * MS, (began_ms + 10) * MS, (), (), (), (), (), split), late_ms * MS)

    def shown(now_ms: int) -> float:
        found = compact({"m": Source(metrics)}, now_ms * MS)["models"]["m"]["late_ms"]
        assert f'sim:late_seconds{{model_name="m"}} {found / 1000:.9g}' in prometheus(
            {"m": Source(metrics)}, now_ms * MS
        )
        return float(found)

    for began_ms in range(0, 1500, 10):
        step(began_ms, 203 if began_ms == 900 else 1)
        assert shown(began_ms + 10) == (203 if began_ms >= 900 else 1)
    for began_ms in range(1500, 2500, 10):
        step(began_ms)
    assert shown(2500) == 1
    step(2500, 203)
    step(9000)
    assert shown(9010) == 0


def timing(queue_ms: float, first_ms: float, last_ms: float) -> Timing:
    return Timing(0, int(first_ms * MS), int(last_ms * MS), RequestTimes(0, int(queue_ms * MS), 0, 0, SPLIT))


def test_every_line_is_of_the_text_format_and_every_figure_is_described() -> None:
    metrics = busy(10)
    metrics.answered(timing(5, 50, 140), "stop", tokens=10)
    text = prometheus({"one": Source(metrics), "two": Source(Metrics())}, 100 * MS)
    assert text.endswith("\n")
    described = set(re.findall(r"^# TYPE (\S+) (?:gauge|counter|histogram)$", text, re.MULTILINE))
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        found = re.fullmatch(r'([a-z_:]+)\{model_name="(one|two)"(,[a-z_]+="[^"]*")*\} [0-9.e+-]+', line)
        assert found, line
        assert re.sub(r"_(bucket|sum|count)$", "", found[1]) in described or found[1] in described


@pytest.mark.parametrize(
    "line",
    [
        'vllm:num_requests_running{model_name="m"} 3',
        'vllm:num_requests_waiting{model_name="m"} 2',
        'vllm:kv_cache_usage_perc{model_name="m"} 0.25',
        'vllm:num_preemptions_total{model_name="m"} 10',
        'vllm:generation_tokens_total{model_name="m"} 20',
        'vllm:request_success_total{model_name="m",finished_reason="stop"} 1',
        'vllm:time_to_first_token_seconds_bucket{model_name="m",le="0.04"} 0',
        'vllm:time_to_first_token_seconds_bucket{model_name="m",le="0.06"} 1',
        'vllm:time_to_first_token_seconds_bucket{model_name="m",le="+Inf"} 1',
        'vllm:time_to_first_token_seconds_sum{model_name="m"} 0.05',
        'vllm:request_time_per_output_token_seconds_sum{model_name="m"} 0.01',
        'sim:step_seconds_total{model_name="m",part="overhead"} 0.04',
    ],
)
def test_the_figures_carry_vllms_names(line: str) -> None:
    metrics = busy(10)
    metrics.answered(timing(5, 50, 140), "stop", tokens=10)
    assert line in prometheus({"m": Source(metrics)}, 100 * MS).splitlines()


def test_an_answer_of_one_token_has_no_time_per_token() -> None:
    metrics = Metrics()
    metrics.answered(timing(0, 1, 1), "length", tokens=1)
    assert sum(metrics.ttft_s.counts) == 1
    assert sum(metrics.tpot_s.counts) == 0


def test_a_value_on_a_bound_counts_below_it() -> None:
    histogram = Histogram(TTFT_S)
    histogram.add(0.25)
    assert histogram.counts[TTFT_S.index(0.25)] == 1
