"""Load statistics: what is counted where, that merging is exact, and what the exit code says."""

from __future__ import annotations

from random import Random
from typing import Any

import orjson
import pytest

from webapp.core import slo
from webapp.core.generator import Watch
from webapp.core.histogram import Histogram
from webapp.core.loadrecord import CATEGORIES, Record, category, record_from_data
from webapp.core.loadstats import BackendStats, LoadStats, Window, exit_code
from webapp.core.loadsummary import patience_words, together

S = 1_000_000_000
MS = 1_000_000
WINDOW = Window(1 * S, 9 * S)


def record(at_s: float = 2.0, ttft_ms: int = 100, tokens: int = 11, gap_ms: int = 10, **more: Any) -> Record:
    at = round(at_s * S)
    first = at + ttft_ms * MS
    last = first + (tokens - 1) * gap_ms * MS
    marks: dict[str, int | None] = {"first_token": first, "first_output": first, "last_token": last, "end": last}
    values: dict[str, Any] = {
        "backend": "a", "number": 1, "outcome": "done", "intended": at, "sent": at, "marks": marks,
        "gaps_ns": (gap_ms * MS,) * (tokens - 1), "output_tokens": tokens, "tokens_source": "usage",
        "tpot_ns": gap_ms * MS,
    }  # fmt: skip
    return Record(**values | more)


def stats(*records: Record, limits: str = "") -> LoadStats:
    found = LoadStats(WINDOW, slo.parse(limits))
    for entry in records:
        found.add(entry)
    return found


def block(found: LoadStats) -> dict[str, Any]:
    return found.summary(["a"])["a"]


def test_figures_follow_from_the_marks() -> None:
    found = block(stats(*[record()] * 100))
    assert found["requests"]["ok"] == 100
    for figure, value in (("ttft_ms", 100), ("ttfo_ms", 100), ("tpot_ms", 10), ("icl_ms", 10), ("e2e_ms", 200)):
        assert found[figure]["p50"] == pytest.approx(value, rel=0.01)
        assert found[figure]["mean"] == pytest.approx(value)
    assert found["icl_ms"]["n"] == 1000
    assert set(found["ttft_ms"]) == {"n", "mean", "p50", "p90", "p95", "p99", "max"}


def test_lateness_shows_in_the_twin_and_is_said() -> None:
    found = block(stats(*[record(intended=round(1.5 * S), at_s=2.0)] * 30))
    assert found["ttft_ms"]["p50"] == pytest.approx(100, rel=0.01)
    assert found["ttft_sched_ms"]["p50"] == pytest.approx(600, rel=0.01)
    assert found["tpot_sched_ms"] == found["tpot_ms"]
    assert any("intended" in warning for warning in found["warnings"])


def test_failures_never_enter_the_histograms_of_success() -> None:
    fast_failures = [record(outcome="failed", error_kind="rate_limited", status=429, ttft_ms=3)] * 60
    found = block(stats(*[record(ttft_ms=900)] * 40, *fast_failures))
    assert found["ttft_ms"]["p50"] == pytest.approx(900, rel=0.01)
    assert found["requests"]["by_error"] == {"429": 60}
    assert found["errors"][0]["count"] == 60


def test_warm_up_and_cool_down_are_cut_by_the_intended_time() -> None:
    found = block(stats(record(0.5), record(2), record(9.5)))
    assert found["requests"]["ok"] == 1
    assert found["requests"]["outside_window"] == 2


def test_tokens_count_when_they_arrive() -> None:
    crossing = record(0.9, ttft_ms=50, tokens=11, gap_ms=10)  # 0.95 to 1.05 s: six of eleven inside
    found = block(stats(crossing))
    assert found["output_tokens_per_s"] == pytest.approx(6 / 8)


def test_attainment_counts_failures_and_users_who_left_as_missed() -> None:
    records = [record(ttft_ms=100)] * 16 + [record(ttft_ms=900)] * 2
    records += [record(outcome="failed", error_kind="reset"), record(outcome="left")]
    found = block(stats(*records, limits="ttft:500"))
    assert found["attainment"] == pytest.approx(16 / 20)
    low, high = found["attainment_interval"]
    assert low < 0.8 < high
    assert found["goodput_per_s"] == pytest.approx(2)


def test_what_we_stopped_ourselves_is_no_failure() -> None:
    found = block(stats(*[record()] * 3, record(outcome="interrupted")))
    assert found["requests"]["failed"] == 0
    assert found["requests"]["interrupted"] == 1


def test_what_was_too_late_already_when_the_run_ended_is_missed_and_what_was_not_is_left_out() -> None:
    """A server that is too slow to be counted must not look better for it."""
    waiting = {"outcome": "interrupted", "marks": {"end": 5 * S}, "gaps_ns": (), "output_tokens": None, "tpot_ns": None}
    good = [record()] * 20
    for limits, overdue in (("ttft:2000", 5), ("ttft:4000", 0), ("e2e:2000", 5), ("tpot:1", 0)):
        found = block(stats(*good, *[record(**waiting)] * 5, limits=limits))
        assert found["requests"]["interrupted"] == 5
        assert found["requests"]["asked"] == 20 + overdue, limits
        assert found["requests"]["overdue"] == overdue
    streaming = record(outcome="interrupted", tokens=300)
    assert block(stats(*good, streaming, limits="e2e:3000"))["requests"]["asked"] == 21
    assert block(stats(*good, streaming, limits="ttft:150 e2e:4000"))["attainment"] == 1.0


def random_record(random: Random) -> Record:
    kinds = {"outcome": "failed", "error_kind": random.choice(["reset", "refused"])} if random.random() < 0.2 else {}
    more = {"backend": random.choice("ab"), "tokens": random.randrange(1, 40), "gap_ms": random.randrange(1, 30)}
    return record(random.uniform(0, 10), random.randrange(5, 900), **more, **kinds)


@pytest.mark.parametrize("workers", [2, 5])
def test_workers_merged_are_what_one_process_would_have_counted(workers: int) -> None:
    random = Random(3)
    records = [random_record(random) for _ in range(400)]
    alone = stats(*records, limits="ttft:300")
    merged = LoadStats(WINDOW, slo.parse("ttft:300"))
    for worker in range(workers):
        part = stats(*records[worker::workers], limits="ttft:300")
        merged.merge_data(orjson.loads(orjson.dumps(part.as_data(), option=orjson.OPT_NON_STR_KEYS)))
    for slug in "ab":
        assert merged.backend(slug).histograms == alone.backend(slug).histograms
    ours, theirs = merged.summary("ab"), alone.summary("ab")
    for slug in "ab":
        assert ours[slug].pop("output_tokens_per_s") == pytest.approx(theirs[slug].pop("output_tokens_per_s"))
        errors = [sorted((e["kind"], e["count"]) for e in block[slug].pop("errors")) for block in (ours, theirs)]
        assert errors[0] == errors[1]
    assert ours == theirs


def test_a_record_survives_its_line() -> None:
    before = record(outcome="failed", error_kind="reset", error="gone", pair=4, late_ns=5000)
    line = orjson.loads(orjson.dumps(before.as_data()))
    assert record_from_data(line) == before


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("refused", 0, "refused"), ("gap_timeout", 0, "timeout"), ("bad_request", 400, "4xx"),
        ("rate_limited", 429, "429"), ("http_status", 503, "5xx"), ("http_status", 402, "4xx"),
        ("reset", 0, "truncated"),
        ("truncated", 0, "truncated"), ("not_a_stream", 200, "protocol"), ("protocol", 0, "protocol"),
    ],
)  # fmt: skip
def test_every_error_has_its_place_in_the_taxonomy(kind: str, status: int, expected: str) -> None:
    assert category(kind, status) == expected
    assert expected in CATEGORIES


def test_exit_codes() -> None:
    good, slow = record(ttft_ms=100), record(ttft_ms=900)
    failed = record(outcome="failed", error_kind="refused")
    limits = "ttft:500"
    assert exit_code(stats(*[good] * 20, limits=limits), ["a"], False) == 0
    assert exit_code(stats(*[good] * 20, failed, limits=limits), ["a"], False) == 1
    assert exit_code(stats(*[good] * 10, *[slow] * 10, limits=limits), ["a"], False) == 3
    assert exit_code(stats(*[good] * 19, limits=limits), ["a"], False) == 4
    assert exit_code(stats(*[good] * 20, limits=limits), ["a"], True) == 4
    assert exit_code(stats(good, good), ["a"], False) == 0
    assert exit_code(stats(), ["a"], False) == 4


def histogram(value_ms: float, n: int = 100) -> Histogram:
    found = Histogram()
    found.record(round(value_ms * MS), n)
    return found


def test_a_generator_that_was_late_is_found_out() -> None:
    ttft, icl = histogram(400), histogram(20)
    assert Watch(histogram(1), histogram(2), 0.4).reasons(ttft, icl) == []
    assert Watch(histogram(25), histogram(2), 0.4).reasons(ttft, histogram(1))
    assert Watch(histogram(11), histogram(2), 0.4).reasons(ttft, icl)  # half a gap
    assert Watch(histogram(1), histogram(30), 0.4).reasons(ttft, icl)
    assert Watch(histogram(1), histogram(2), 0.95).reasons(ttft, icl)
    assert Watch(histogram(30), histogram(2), 0.4).summary(["late"])["verdict"] == "generator-limited"


@pytest.mark.parametrize(("samples", "name"), [(3, "the largest of 3"), (99, "the largest of 99"), (100, "p99")])
def test_a_percentile_of_too_few_samples_is_called_the_largest_that_it_is(samples: int, name: str) -> None:
    (reason,) = Watch(send_late=histogram(30, samples)).reasons(Histogram(), Histogram())
    assert reason == f"Requests began 30 ms late ({name})."


def test_a_reason_is_given_once_and_with_its_backend_where_it_is_not_all_of_theirs() -> None:
    late, slow = "The loop was late.", "Requests began 30 ms late (p99)."
    assert together({"a": [late, slow], "b": [late]}) == [late, f"a: {slow}"]
    assert together({"a": [late]}) == [late]
    assert together({"a": [], "b": []}) == []


def test_an_unknown_backend_merges_to_nothing() -> None:
    assert BackendStats.from_data(orjson.loads(orjson.dumps(BackendStats().as_data()))) == BackendStats()


def test_users_who_left_are_told_of_with_what_the_server_did_for_them() -> None:
    gone = record(outcome="left", marks={"end": 3 * S}, gaps_ns=(), output_tokens=None, tpot_ns=None)
    found = block(stats(*[gone] * 4))
    assert found["left_ms"]["p50"] == pytest.approx(1000, rel=0.01)
    assert patience_words(found).endswith("what the server did then is not known.")
    found["server"] = {"unread_tokens": 120, "held_ms": 340.0}
    assert patience_words(found) == (
        "4 left without an answer, after 1000 ms (p50); "
        "the server produced 120 tokens for nobody and went on for 340 ms."
    )
    assert patience_words(block(stats(record()))) == ""
