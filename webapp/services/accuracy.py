"""How far off the simulator is, as the app's page shows it: what `manage.py validate` found, kept beside its tables.

Computing it takes seconds of CPU, which a serving process has no time for; a test holds the kept file to the code.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

KEPT = Path(__file__).resolve().parent.parent / "simulator" / "validation" / "state.json"


@cache
def kept() -> dict[str, Any]:
    """Return the kept report of the published tables; its errors are fractions."""
    report: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
    return report


def keep(report: dict[str, Any], *, measured: bool) -> None:
    """Write what the page shows of a report; its figures of rows too where they are of `measured` ones."""
    found: dict[str, Any] = {"tables": [{name: table[name] for name in TABLE_FIELDS} for table in report["tables"]]}
    if measured:
        found["measured_rows"] = {name: report[name] for name in ROW_FIELDS} | {
            f"n_{use}": report[use]["n"] for use in USES
        }
    elif "measured_rows" in kept():
        found["measured_rows"] = kept()["measured_rows"]
    KEPT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    kept.cache_clear()


TABLE_FIELDS = (
    "table", "label", "source", "date", "profile", "fitted", "n", "mape", "median_ape", "target", "met", "missed",
    "points",
)  # fmt: skip
ROW_FIELDS = (
    "rows", "n", "tpot_mape", "tpot_median_ape", "ttft_mape", "saturated", "saturated_found", "saturated_recall",
    "false_alarm_rate", "held_out",
)  # fmt: skip
USES = ("fitted", "chosen", "not_fitted")  # what rows were used for: `validation/fits.py`
