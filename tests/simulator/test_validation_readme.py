"""The README's table of the simulator's error says what `make validate` found and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from webapp.services.accuracy import kept
from webapp.simulator.validation.fits import load_fits

README = Path(__file__).parents[2] / "README.md"


def cells(table: Mapping[str, Any]) -> str:
    firsts = [abs(point["error"]) for point in table["points"] if point["unit"] == "ms to first token"]
    target = "–" if table["target"] is None else f"{table['target']:.0%}".replace("%", " %")
    return " | ".join([str(table["n"]), percent(table["mape"]), percent(fmean(firsts) if firsts else None), target])


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.1f} %"


def lines() -> Iterator[str]:
    for table in kept()["tables"]:
        yield f"| {table['table']} | {cells(table)} |"
    rows = kept()["measured_rows"]
    figures = f"{percent(rows['tpot_mape'])} | {percent(rows['ttft_mape'])} | 8 %, 25 %"
    yield f"| {rows['n']} measured rows | {rows['n']} | {figures} |"


def test_the_table_in_the_readme_is_what_was_kept() -> None:
    shown = README.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines() if line not in shown] == []


def test_the_sentences_in_the_readme_are_what_was_kept() -> None:
    rows, text = kept()["measured_rows"], README.read_text(encoding="utf-8")
    assert f"{rows['saturated_found']} of {rows['saturated']}" in text
    assert f"{percent(rows['false_alarm_rate'])} false alarms" in text
    held = (percent(rows["held_out"][name]["tpot_mape"]) for name in ("rows", "configurations", "versions", "machines"))
    told = (
        "{} off for rows of a fitted configuration, {} for another configuration, {} for another version of its engine "
        "and {} for a machine that was not measured"
    )
    assert told.format(*held) in " ".join(text.split())


def test_the_readme_says_how_many_numbers_were_fitted() -> None:
    fits, text = load_fits().by_key, " ".join(README.read_text(encoding="utf-8").split())
    versions = [fit.rows for key, fit in fits.items() if len(key) == 7]
    assert (
        f"a time per layer at each of {len(fits)} keys, {len(versions)} of them a configuration in one version" in text
    )
    assert f"{versions.count(1)} of these with a single row" in text
