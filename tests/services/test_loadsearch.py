"""Searches and sweeps over runs whose outcome is known: what is tried, what is written, what the exit code says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from webapp.core.arrivals import flat
from webapp.core.generator import Watch
from webapp.core.loadplan import Plan, Target
from webapp.core.loadrecord import Record
from webapp.core.loadstats import LoadStats
from webapp.core.loadsummary import blocks, chart_data, name_at, summarise, table
from webapp.services import loadcharts, loadreport, loadsearch
from webapp.services.loadresults import results

MS = 1_000_000
TARGETS = tuple(Target(slug, "http://127.0.0.1:9/v1", slug) for slug in ("small", "large"))
PLAN = Plan(TARGETS, "search", duration_s=10, warmup_s=1, cooldown_s=0, slo="ttft:500", users=2, up_to=64)
SWEEP = replace(PLAN, kind="sweep", loads=(1.0, 2.0, 8.0))
CAPACITY = {"small": 5, "large": 1000}


class Runs:
    """Stands for the generator: answers in 100 ms up to each backend's capacity, in 900 ms beyond it."""

    def __init__(self, per_user_s: float = 5.0, lag_ms: float = 0.0, stop_at: int = 10**9) -> None:
        self.made: list[tuple[str, int, float]] = []
        self._per_user_s, self._lag_ms, self._stop_at = per_user_s, lag_ms, stop_at

    def __call__(self, plan: Plan, folder: Path) -> dict[str, Any]:
        (slug,) = plan.slugs
        self.made.append((slug, plan.users, plan.duration_s))
        stats, watch = LoadStats(plan.window, plan.limits()), Watch()
        watch.hub_lag.record(round(self._lag_ms * MS), 100)
        ttft = 100 * MS if plan.users <= CAPACITY[slug] else 900 * MS
        for number in range(round(plan.window.seconds * plan.users * self._per_user_s)):
            at = plan.window.start + number
            marks: dict[str, int | None] = {"first_token": at + ttft, "last_token": at + 2 * ttft, "end": at + 2 * ttft}
            stats.add(Record(slug, number, "done", at, at, marks, output_tokens=10, tokens_source="usage", tpot_ns=MS))
        ns = round(plan.duration_s * 1e9)
        ended = "stopped" if plan.users >= self._stop_at else "complete"
        found = summarise(plan, stats, watch, ended=ended, elapsed_ns=ns, started_at=0.0, t0_ns=0, versions={})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "charts.json").write_bytes(orjson.dumps(chart_data(plan, stats, [])))
        (folder / "requests.jsonl").write_bytes(f"{slug} {plan.users}\n".encode())
        (folder / "vllm.json").write_bytes(b"{}\n")
        return found


@pytest.fixture
def said() -> list[str]:
    return []


def test_a_search_answers_for_each_backend_with_the_figures_of_its_best_load(tmp_path: Path, said: list[str]) -> None:
    runs = Runs()
    (tmp_path / "other-9").mkdir()
    (tmp_path / "other-9" / "requests.jsonl").write_text("of an earlier search in this folder\n")
    found = loadsearch.series(PLAN, tmp_path, runs, said.append)
    assert [found["search"][slug]["users"] for slug in ("small", "large")] == [5, 64]
    assert [users for slug, users, _ in runs.made if slug == "large"] == [2, 4, 8, 16, 32, 64]
    assert found["exit_code"] == 0
    assert found["backends"]["small"]["attainment"] == 1.0, "of 5 users, not of the 6 that were too many"
    written = orjson.loads((tmp_path / "summary.json").read_bytes())
    assert (written["backends"], written["search"]) == (found["backends"], found["search"])
    assert (tmp_path / "requests.jsonl").read_text().count("\n") == len(runs.made)
    charts = orjson.loads((tmp_path / "charts.json").read_bytes())
    assert charts["distribution"]["large"]["ttft"]
    named = loadcharts.named(found, charts)
    assert next(iter(named)) == "how-many-users"
    assert {row["backend"] for row in named["how-many-users"]["data"]["values"]} == {"A  small", "B  large"}
    assert all(
        sentence in loadreport.page(found, []) for sentence in ("small serves 5 users", "large serves at least 64")
    )


def test_a_search_that_misses_the_slo_from_the_start_ends_with_3(tmp_path: Path, said: list[str]) -> None:
    plan = Plan(TARGETS[:1], "search", slo="ttft:50", users=1, up_to=8)
    found = loadsearch.series(plan, tmp_path, Runs(), said.append)
    assert found["exit_code"] == 3
    assert "does not serve even 1 user for" in found["search"]["small"]["sentence"]


def test_a_search_with_too_few_requests_tries_longer_and_then_refuses_to_answer(
    tmp_path: Path, said: list[str]
) -> None:
    runs = Runs(per_user_s=0.2)
    found = loadsearch.series(replace(PLAN, up_to=4), tmp_path / "longer", runs, said.append)
    assert [seconds for _, _, seconds in runs.made[:2]] == [10, 100]
    assert "only 4 requests began" in said[0]
    assert found["duration_s"] == sum(seconds for _, _, seconds in runs.made) > 100
    assert found["exit_code"] == 0
    runs = Runs(per_user_s=0.01)
    found = loadsearch.series(replace(PLAN, up_to=4), tmp_path / "never", runs, said.append)
    assert found["exit_code"] == 4
    assert max(seconds for _, _, seconds in runs.made) == 160
    assert "not measurable, too few requests" in found["search"]["small"]["sentence"]


def test_a_generator_at_its_limit_is_tried_again_and_answers_nothing(tmp_path: Path, said: list[str]) -> None:
    runs = Runs(lag_ms=200)
    found = loadsearch.series(replace(PLAN, up_to=4), tmp_path, runs, said.append)
    assert found["exit_code"] == 4
    assert len(runs.made) == 6
    assert "the generator itself was the limit" in found["search"]["large"]["sentence"]


def test_a_search_that_is_stopped_keeps_what_it_had_found_and_does_not_pass(tmp_path: Path, said: list[str]) -> None:
    runs = Runs(stop_at=4)
    found = loadsearch.series(PLAN, tmp_path, runs, said.append)
    assert [users for _, users, _ in runs.made] == [2, 4]
    assert (found["ended"], found["exit_code"]) == ("stopped", 4)
    assert list(found["backends"]) == list(found["search"]) == ["small"]


def test_a_sweep_that_is_stopped_keeps_its_points(tmp_path: Path, said: list[str]) -> None:
    found = loadsearch.series(replace(SWEEP, loads=(1, 2, 4, 8)), tmp_path, Runs(stop_at=4), said.append)
    assert [(point["backend"], point["load"]) for point in found["sweep"]] == [("small", 1), ("small", 2), ("small", 4)]
    assert found["exit_code"] == 4


def test_a_sweep_gives_a_point_for_each_backend_and_load(tmp_path: Path, said: list[str]) -> None:
    found = loadsearch.series(SWEEP, tmp_path, Runs(), said.append)
    points = {(point["backend"], point["load"]): point for point in found["sweep"]}
    assert set(points) == {(slug, load) for slug in ("small", "large") for load in (1, 2, 8)}
    assert points["small", 8]["ttft_p50_ms"] == pytest.approx(900, rel=0.01)
    assert points["large", 8]["ttft_p50_ms"] == pytest.approx(100, rel=0.01)
    assert points["large", 8]["throughput"] == pytest.approx(4 * points["large", 2]["throughput"], rel=0.02)
    assert points["small", 1]["interactivity"] == pytest.approx(1000, rel=0.01)
    assert found["exit_code"] == 3
    named = loadcharts.named(found, {})
    assert next(iter(named)) == "throughput-against-interactivity"
    assert 'answer bad">The SLO was missed.' in loadreport.page(found, [])
    assert 'answer">small, 1 to 8 users: ' in loadreport.page(found, [])


def test_a_sweep_shows_all_figures_of_each_load_and_says_which_a_distribution_is_of(tmp_path: Path) -> None:
    found = loadsearch.series(replace(SWEEP, loads=(1.0, 8.0)), tmp_path, Runs())
    expected = {"small, 1 user": 100, "small, 8 users": 900, "large, 1 user": 100, "large, 8 users": 100}
    first_ms = {name_at(slug, load): block["ttft_ms"]["p50"] for slug, load, block in blocks(found)}
    assert first_ms == pytest.approx(expected, rel=0.01)
    report, lines = loadreport.page(found, []), list(table(found))
    for name in expected:
        assert f"<td>{name} (" in report
        assert any(line.startswith(f"{name} ") for line in lines)
    distribution = loadcharts.named(found, results(tmp_path)[1])["distribution-of-time-to-first-token"]
    assert distribution["usermeta"] == {"at": "at 8 users"}
    assert distribution["title"]["subtitle"] == ["at 8 users"]


def test_a_backend_keeps_its_colour_where_another_has_nothing_to_show(tmp_path: Path) -> None:
    found = loadsearch.series(SWEEP, tmp_path, Runs())
    kept = results(tmp_path)[1]
    whole = loadcharts.named(found, kept)["distribution-of-time-to-first-token"]
    kept["distribution"]["small"]["ttft"] = []
    alone = loadcharts.named(found, kept)["distribution-of-time-to-first-token"]
    assert {row["backend"] for row in alone["data"]["values"]} == {"B  large"}
    assert alone["layer"][0]["encoding"] == whole["layer"][0]["encoding"]


@pytest.mark.parametrize(
    ("badges", "lines"),
    [
        (("SIMULATED", "SIMULATED"), ["SIMULATED"]),
        (("LIVE", "SIMULATED"), ["LIVE: A", "SIMULATED: B"]),
    ],
)
def test_charts_carry_their_backends_badges_wherever_they_go(
    tmp_path: Path, badges: tuple[str, str], lines: list[str]
) -> None:
    targets = tuple(replace(target, badge=badge) for target, badge in zip(TARGETS, badges, strict=True))
    found = loadsearch.series(replace(SWEEP, targets=targets), tmp_path, Runs())
    named = loadcharts.named(found, {})
    assert [spec["title"]["subtitle"] for spec in named.values()] == [lines]


def test_what_has_been_found_is_told_after_each_run(tmp_path: Path, said: list[str]) -> None:
    told: list[dict[str, Any]] = []
    loadsearch.series(SWEEP, tmp_path, Runs(), said.append, told.append)
    assert [len(summary["sweep"]) for summary in told] == [1, 2, 3, 4, 5, 6]
    assert [list(summary["backends"]) for summary in told[2:4]] == [["small"], ["small", "large"]]
    told.clear()
    loadsearch.series(replace(PLAN, up_to=4), tmp_path, Runs(), said.append, told.append)
    assert [step["load"] for step in told[1]["search"]["small"]["steps"]] == [2, 4]


def test_a_search_whose_process_died_is_put_together_from_what_its_runs_have_left(
    tmp_path: Path, said: list[str]
) -> None:
    runs = Runs()

    def killed(plan: Plan, folder: Path) -> dict[str, Any]:
        if len(runs.made) == 3:
            raise KeyboardInterrupt
        found = runs(plan, folder)
        (folder / "summary.json").write_bytes(orjson.dumps(found))
        return found

    (tmp_path / "params.json").write_bytes(orjson.dumps(PLAN.as_data()))
    with pytest.raises(KeyboardInterrupt):
        loadsearch.series(PLAN, tmp_path, killed, said.append)
    summary, charts, made = results(tmp_path)
    assert made
    assert [step["load"] for step in summary["search"]["small"]["steps"]] == [2, 4, 8]
    assert (summary["ended"], summary["exit_code"]) == ("interrupted", 4)
    assert charts["distribution"]["small"]["ttft"]
    assert results(tmp_path)[2] is False, "it is written now"


def test_a_run_that_is_stopped_before_it_has_measured_anything_is_no_point(tmp_path: Path, said: list[str]) -> None:
    def run(plan: Plan, folder: Path) -> dict[str, Any]:
        return Runs(stop_at=2, per_user_s=5.0 if plan.users < 2 else 0.0)(plan, folder)

    found = loadsearch.series(SWEEP, tmp_path, run, said.append)
    assert [point["load"] for point in found["sweep"]] == [1]
    assert (found["ended"], found["backends"]["small"]["requests"]["ok"]) == ("stopped", 45)


def test_nothing_is_written_where_nothing_was_measured(tmp_path: Path) -> None:
    assert loadsearch.series(PLAN, tmp_path, lambda *_: {"ended": "stopped"}) == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (replace(PLAN, slo=""), "A search needs an SLO"),
        (replace(PLAN, up_to=1), "begins with 1 user"),
        (replace(PLAN, up_to=2000), "ends with 1000"),
        (replace(PLAN, mode="rate", schedule=flat("poisson", 2)), "it has no rate"),
        (replace(SWEEP, loads=()), "1 to 16 loads"),
        (replace(SWEEP, loads=(0.0,)), "more than nothing"),
        (replace(SWEEP, loads=(1.0, 1001.0)), "At most 1000 users"),
        (replace(SWEEP, mode="rate", schedule=flat("poisson", 2), loads=(2.0, 501.0)), "At most 500 requests"),
        (replace(SWEEP, stages=((0, 1), (10, 5))), "one steady load"),
        (replace(PLAN, kind="ab", targets=TARGETS[:1]), "needs two backends"),
        (replace(PLAN, kind="mud"), "There is no kind 'mud'"),
    ],
)
def test_a_series_that_cannot_be_run_is_refused_before_its_first_run(plan: Plan, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        plan.checked()
    assert replace(PLAN, users=600, up_to=1000).checked(), "one backend at a time: the cap holds for each"
