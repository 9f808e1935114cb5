"""Open loops: one schedule, however many processes walk it."""

from __future__ import annotations

from pathlib import Path

from tests.loadtests.conftest import Reference
from tests.loadtests.generator import END_S, Results, plan, run, start

TRACE = [[0.01 * k, 40 + k % 7, 5 + k % 11] for k in range(60)]


def numbers(results: Results) -> list[int]:
    return sorted(record["number"] for record in results.records)


def test_two_workers_and_one_process_give_the_same_histograms_for_a_trace(tmp_path: Path, reference: Reference) -> None:
    common = {"mode": "rate", "schedule": {"trace": TRACE}, "mix": "fixed:20/20"}
    target = ("ref", reference.url, "ref-500x200")
    processes = [start(tmp_path / str(workers), plan(target, workers=workers, **common)) for workers in (1, 2)]
    found = [Results(tmp_path / str(workers), processes[workers - 1].wait(END_S)) for workers in (1, 2)]
    alone, together = found
    assert numbers(alone) == numbers(together) == list(range(len(TRACE)))
    ours, theirs = alone.block("ref"), together.block("ref")
    assert ours["requests"] == theirs["requests"]
    assert ours["requests"]["ok"] == len(TRACE)
    for name in ("input_tokens", "output_tokens"):
        assert ours[name] == theirs[name]
    for figure in ("ttft_ms", "icl_ms", "e2e_ms", "ttft_sched_ms"):
        assert ours[figure]["n"] == theirs[figure]["n"]
    expected = [max(1, outputs) for _, _, outputs in TRACE]
    assert ours["output_tokens"]["mean"] * len(TRACE) == sum(expected)


def test_requests_leave_when_they_were_meant_to_however_slow_the_answers(tmp_path: Path, reference: Reference) -> None:
    parameters = plan(
        ("ref", reference.url, "ref-100x20+900ms"),
        mode="rate",
        schedule={"kind": "constant", "rates": [[0, 20]]},
        mix="fixed:20/20",
    )
    results = run(tmp_path, parameters)
    intended = sorted(record["marks_us"]["intended"] for record in results.records)
    assert intended == [50_000 * k for k in range(1, 24)]
    assert results.block("ref")["requests"]["ok"] == len(intended)
    late = sorted(record["late_us"] for record in results.records)
    assert late[len(late) // 2] < 50_000


def test_a_pair_is_asked_the_same_at_the_same_instant_and_an_a_a_run_finds_no_difference(
    tmp_path: Path, reference: Reference
) -> None:
    targets = [(slug, reference.url, "ref-200x10+30ms") for slug in ("one", "two")]
    results = run(tmp_path, plan(*targets, mode="pairs", users=3, mix="uniform:20-80/5-9"))
    pairs: dict[int, list[dict[str, object]]] = {}
    for record in results.records:
        pairs.setdefault(record["pair"], []).append(record)
    assert len(pairs) > 15
    for pair in pairs.values():
        assert {record["backend"] for record in pair} == {"one", "two"}
        assert len({record["output_tokens"] for record in pair}) == 1
        assert len({record["marks_us"]["intended"] for record in pair}) == 1  # type: ignore[index]
    verdicts = {pair["figure"]: pair["result"] for pair in results.summary["pairs"]}
    assert verdicts["ttft"] == "no difference"
