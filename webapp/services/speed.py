"""What Splitsecond itself costs, as the help page shows it: the benchmark's rows, kept where it was told to keep them.

The benchmark takes half an hour and a machine left alone, so it is run by hand; each row says when and where.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

KEPT = Path(__file__).resolve().parent.parent / "speed.json"


@cache
def kept() -> list[dict[str, Any]]:
    """Return the kept rows in the benchmark's order: figure, ours, reference, ratio, target, met, note, date, where."""
    rows: list[dict[str, Any]] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else []
    return rows


def keep(rows: Sequence[dict[str, Any]]) -> None:
    """Put these rows in the place of older ones of the same figure."""
    renewed = {_figure(row): row for row in rows}
    old = [renewed.pop(_figure(row), row) for row in kept()]
    KEPT.write_text(json.dumps([*old, *renewed.values()], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    kept.cache_clear()


def _figure(row: dict[str, Any]) -> tuple[str, str]:
    return row["id"], row["figure"]
