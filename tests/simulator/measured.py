"""Measured rows as the validation reads them, and the shipped machines and models that they are of."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from webapp.simulator.profile import PROFILE_DIR, Catalogue
from webapp.simulator.validation.rows import COLUMNS, Row, sort_out

CATALOGUE = Catalogue.load(PROFILE_DIR)
LINE = {
    "model": "meta-llama/Llama-3.1-70B",
    "system": "h100_sxm",
    "backend": "vllm",
    "version": "0.18.0",
    "precision": "fp8",
    "tp": "2",
    "moe_tp": "2",
    "moe_ep": "1",
    "attention_dp": "1",
    "concurrency": "4",
    "isl": "1024",
    "osl": "128",
    "ttft_ms": "150.0",
    "tpot_ms": "17.5",
}


def line(**changes: object) -> dict[str, str]:
    return {**LINE, **{name: str(value) for name, value in changes.items()}}


def rows_of(lines: Iterable[Mapping[str, str]]) -> list[Row]:
    rows, skipped = sort_out(lines, CATALOGUE)
    assert not skipped
    return rows


def written(path: Path, lines: Iterable[Mapping[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)
    return path
