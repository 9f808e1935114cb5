"""Rows of measurements: read with care, and predicted as their recipes say that they were measured."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from tests.simulator.measured import CATALOGUE, line, rows_of, written
from webapp.simulator.validation import bench
from webapp.simulator.validation.bench import Way, expect
from webapp.simulator.validation.rows import COLUMNS, read_rows, serving_of, sort_out
from webapp.simulator.virtual import normal_lengths


def test_rows_of_unknown_models_and_systems_are_counted_with_their_reason() -> None:
    lines = [line(), line(model="acme/Big"), line(model="acme/Big"), line(system="abacus"), line(tp=0), line(isl="x")]
    rows, skipped = sort_out([*lines, line()], CATALOGUE)
    assert len(rows) == 1
    assert skipped == {
        "the same line again": 1,
        "unknown model 'acme/Big'": 2,
        "unknown system 'abacus'": 1,
        "tp is not above 0": 1,
        "isl is not a whole number": 1,
    }


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("value", ["", "-1", "nan", "inf", "1e99", "\x00", "Ω"])
def test_no_cell_can_break_the_reading(column: str, value: str) -> None:
    rows, skipped = sort_out([line(**{column: value})], CATALOGUE)
    assert len(rows) + sum(skipped.values()) == 1


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("osl", "2.5", "osl is not a whole number"),
        ("osl", "inf", "osl is not a whole number"),
        ("isl", "1000001", "isl is out of range"),
        ("osl", "1", "an answer of one token has no time per token"),
        ("tpot_ms", "nan", "tpot_ms is not a number"),
        ("ttft_ms", "1e99", "ttft_ms is out of range"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(column: str, value: str, why: str) -> None:
    assert sort_out([line(**{column: value})], CATALOGUE)[1] == {why: 1}


def test_a_file_that_a_spreadsheet_wrote_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", [line()])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    rows, skipped = read_rows(path, CATALOGUE)
    assert (len(rows), skipped) == (1, {})


def test_a_load_that_could_never_fit_is_full_without_being_simulated() -> None:
    (row,) = rows_of([line(concurrency=1_000_000, osl=1_000_000)])
    result = expect(row, serving_of(row, CATALOGUE.machines[row.system], CATALOGUE.models[row.model], 70.0))
    assert (result.tpot_ms, result.ttft_ms) == (None, None)
    assert result.kv_share > 1


def test_weights_that_do_not_fit_are_skipped() -> None:
    _, skipped = sort_out([line(model="meta-llama/Llama-3.1-405B", tp=1)], CATALOGUE)
    assert list(skipped) == ["llama-405b in fp8 does not fit 1×h100"]


def test_a_file_without_a_column_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("model,system\na,b\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows\.csv lacks the column 'backend'"):
        read_rows(path, CATALOGUE)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"rows\.csv is not a CSV file"):
        read_rows(path, CATALOGUE)


def test_what_a_row_leaves_out_is_taken_from_its_engine() -> None:
    def serving(**changes: object) -> Any:
        (row,) = rows_of([line(**changes)])
        return serving_of(row, CATALOGUE.machines[row.system], CATALOGUE.models[row.model])

    assert serving(backend="trtllm").reserves_answers
    assert serving(precision="", tp=4).precision == "bf16"
    assert serving(precision="", backend="sglang", version="0.5.1.post1").precision == "fp8"
    assert serving(precision="", backend="sglang", version="0.5.8.post1", tp=4).precision == "bf16"
    assert serving(model="openai/gpt-oss-120b", precision="fp8").precision == "fp4"
    assert serving(model="openai/gpt-oss-120b").arithmetic == "bf16"
    assert serving(model="openai/gpt-oss-120b", system="b200_sxm").arithmetic == "fp8"


@pytest.mark.parametrize(
    ("changes", "bytes_each"),
    [
        ({"backend": "vllm"}, 2),
        ({"backend": "trtllm"}, 1),
        ({"backend": "vllm", "system": "b200_sxm"}, 1),
        ({"model": "MiniMaxAI/MiniMax-M2.5", "system": "b200_sxm", "tp": 4, "version": "0.17.0"}, 2),
        ({"model": "MiniMaxAI/MiniMax-M2.5", "system": "b200_sxm", "tp": 4, "version": "0.19.0"}, 1),
    ],
)
def test_the_kv_cache_has_the_precision_of_its_recipe(changes: dict[str, object], bytes_each: int) -> None:
    (row,) = rows_of([line(**changes)])
    assert serving_of(row, CATALOGUE.machines[row.system], CATALOGUE.models[row.model]).kv_bytes == bytes_each


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, 8192),  # the default of vLLM and TensorRT-LLM
        ({"concurrency": 6000}, 12_000),  # decoding takes half at most
        ({"model": "MiniMaxAI/MiniMax-M2.5", "system": "b200_sxm", "tp": 4, "version": "0.19.0", "isl": 1000}, 2000),
        (
            {"model": "MiniMaxAI/MiniMax-M2.5", "system": "b200_sxm", "tp": 4, "version": "0.19.0", "isl": 1000}
            | {"attention_dp": 4},
            8000,
        ),
    ],
)
def test_a_step_takes_the_tokens_that_its_engine_lets_it(changes: dict[str, object], tokens: int) -> None:
    """Two prompts for each data-parallel group where the recipe says so."""
    (row,) = rows_of([line(**changes)])
    assert serving_of(row, CATALOGUE.machines[row.system], CATALOGUE.models[row.model]).batch_tokens == tokens


@pytest.mark.parametrize(("version", "at_once"), [("0.18.0", 512), ("0.11.2", 64)])
def test_an_engine_works_for_all_users_at_once_unless_its_recipe_says_otherwise(version: str, at_once: int) -> None:
    (row,) = rows_of([line(model="openai/gpt-oss-120b", version=version, tp=8, concurrency=512)])
    assert serving_of(row, CATALOGUE.machines["h100"], CATALOGUE.models["gpt-oss-120b"]).max_sequences == at_once


@pytest.mark.parametrize(
    ("backend", "devices", "groups", "in_all"), [("vllm", 4, 4, 4), ("vllm", 2, 1, 2), ("trtllm", 1, 4, 4)]
)
def test_data_parallel_groups_are_counted_as_their_recipe_counts_them(
    backend: str, devices: int, groups: int, in_all: int
) -> None:
    (row,) = rows_of([line(backend=backend, tp=devices, attention_dp=groups, system="b200_sxm")])
    assert (row.devices, row.data_parallel) == (in_all, groups)


def test_users_beyond_the_batch_of_their_recipe_wait() -> None:
    (row,) = rows_of([line(model="openai/gpt-oss-120b", version="0.11.2", tp=8, concurrency=512)])
    result = expect(row, serving_of(row, CATALOGUE.machines["h100"], CATALOGUE.models["gpt-oss-120b"], 88.0))
    assert result.kv_share < 1
    assert result.ttft_ms is not None
    assert result.ttft_ms > 5000


def test_prompts_that_the_engine_knows_cost_no_arithmetic() -> None:
    (known,) = rows_of([line(model="nvidia/Llama-3.1-8B-Instruct-FP8", system="h200_sxm", version="0.12.0", isl=8000)])
    (new,) = rows_of([line(model="nvidia/Llama-3.1-8B-Instruct-FP8", system="h200_sxm", version="0.18.0", isl=8000)])
    machine, model = CATALOGUE.machines["h200"], CATALOGUE.models["llama-8b"]
    first, usual = (expect(row, serving_of(row, machine, model, 60.0)).ttft_ms for row in (known, new))
    assert first is not None
    assert usual is not None
    assert first < usual / 5


def test_the_start_burst_counts_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = rows_of([line(concurrency=32, isl=4096)])
    serving = serving_of(row, CATALOGUE.machines["h100"], CATALOGUE.models["llama-70b"], 77.0)
    usual, found = expect(row, serving).ttft_ms, {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(bench, "BURST_SHARE", share)
        found[share] = expect(row, serving).ttft_ms or 0.0
    assert found[1.0] > 3 * found[0.0] > 0
    assert usual == pytest.approx(0.1 * found[1.0] + 0.9 * found[0.0])


def test_users_who_asked_only_once_all_met_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    often, once = rows_of(
        line(backend="sglang", version=version, concurrency=32, isl=4096, attention_dp="")
        for version in ("0.5.6", "0.5.8.post1")
    )
    assert (often.recipe.one_wave, once.recipe.one_wave) == (False, True)
    serving = serving_of(once, CATALOGUE.machines["h100"], CATALOGUE.models["llama-70b"], 77.0)
    one_wave = expect(once, serving).ttft_ms
    monkeypatch.setattr(bench, "BURST_SHARE", 1.0)
    assert one_wave == pytest.approx(expect(often, serving).ttft_ms, rel=0.01)


def test_an_engine_that_reserves_answers_needs_room_for_whole_ones() -> None:
    (row,) = rows_of([line(isl=1000, osl=1000, attention_dp="")])
    serving = serving_of(row, CATALOGUE.machines["h100"], CATALOGUE.models["llama-70b"], 77.0)
    grown, reserved = (expect(row, replace(serving, reserves_answers=reserves)).kv_share for reserves in (False, True))
    assert reserved == pytest.approx(grown * 2000 / 1500, rel=0.01)


def test_users_with_equal_lengths_who_began_together_wait_for_each_other() -> None:
    (row,) = rows_of([line(model="llama-8b", concurrency=50, isl=200, osl=200, attention_dp="")])
    serving = serving_of(row, CATALOGUE.machines["h100"], CATALOGUE.models["llama-8b"], 60.0)
    apart, together = expect(row, serving).ttft_ms, expect(row, serving, Way(in_step=True)).ttft_ms
    assert apart is not None
    assert together is not None
    assert together > 1.5 * apart


def test_the_answers_that_are_over_first_are_the_short_ones_and_met_the_start() -> None:
    (row,) = rows_of([line(concurrency=64, isl=400, osl=300, attention_dp="")])
    serving = serving_of(row, CATALOGUE.machines["h100"], CATALOGUE.models["llama-70b"], 77.0)

    def first(answers: int, **way: Any) -> tuple[float, float]:
        result = expect(row, serving, Way(answers=answers, deviations=(200, 150), **way))
        assert result.tpot_ms is not None
        assert result.ttft_ms is not None
        return result.tpot_ms, result.ttft_ms

    (early_tpot, early_ttft), (late_tpot, late_ttft) = first(64), first(1920)
    assert early_ttft > 3 * late_ttft
    assert early_tpot > late_tpot
    assert first(64, speeds=True)[0] < early_tpot  # 1 ÷ the mean of speeds is below the mean of paces


def test_normal_lengths_have_their_mean_and_deviation_and_are_lengths() -> None:
    drawn = list(islice(normal_lengths(480, 300, (240, 150), 1), 20_000))
    prompts, outputs = (list(column) for column in zip(*drawn, strict=True))
    assert min(min(prompts), min(outputs)) >= 1
    # What is below 1 is drawn again: 2.3 % of both, which moves the mean up by 5.5 % of a deviation.
    assert fmean(prompts) == pytest.approx(480 + 0.055 * 240, rel=0.01)
    assert fmean(outputs) == pytest.approx(300 + 0.055 * 150, rel=0.01)
    assert stdev(prompts) == pytest.approx(240, rel=0.07)


def test_inferencex_draws_lengths_from_four_fifths_of_the_nominal_ones_on() -> None:
    drawn, fixed = rows_of(line(isl=1000, osl=100, attention_dp=parallel) for parallel in ("1", ""))
    assert drawn.mean_tokens == pytest.approx((900, 90))
    assert fixed.mean_tokens == (1000, 100)
