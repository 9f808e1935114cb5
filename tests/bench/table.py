"""The rows that the benchmark ends in, as a table for people and as JSON for what compares runs."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

COLUMNS = ("", "figure", "ours", "reference", "ratio", "target", "met")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `ours` and `reference` are texts with units; `value` is what the target judges.

    `target` and `beyond` are upper limits of `value`, or lower ones where `more` is better; None: nothing is asked,
    the row informs. `value` None: it could not be measured, and `note` says why.
    """

    id: str
    figure: str
    ours: str = "n/a"
    reference: str = ""
    value: float | None = None
    value_text: str = ""
    target: float | None = None
    beyond: float | None = None
    more: bool = False
    note: str = ""
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> str:
        if self.target is None:
            return ""
        if self.value is None:
            return "n/a"
        if self.beyond is not None and self._within(self.value, self.beyond):
            return "beyond"
        return "yes" if self._within(self.value, self.target) else "NO"

    @property
    def target_text(self) -> str:
        if self.target is None:
            return ""
        return f"{'≥' if self.more else '≤'} {self.target:g}"

    def cells(self) -> tuple[str, ...]:
        shown = self.value_text or ("" if self.value is None else f"{self.value:.2f}")
        return (self.id, self.figure, self.ours, self.reference, shown, self.target_text, self.met)

    def shown(self, about: dict[str, Any], date: str) -> dict[str, str]:
        """Return what the app's help page shows of the row."""
        names = ("id", "figure", "ours", "reference", "ratio", "target", "met")
        where = f"{about['cores']} cores, Python {about['python']}, {platform.system()} {platform.machine()}"
        return {**dict(zip(names, self.cells(), strict=True)), "note": self.note, "date": date, "where": where}

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}

    def _within(self, value: float, limit: float) -> bool:
        return value >= limit if self.more else value <= limit


def missing(id: str, figure: str, why: str) -> Row:
    """Return a row for what could not be measured on this machine; it is neither met nor failed."""
    return Row(id, figure, note=why)


def text_table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text, each row's note indented below it."""
    cells = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    indent = " " * (widths[0] + 2)
    for place in range(len(rows), 0, -1):
        if rows[place - 1].note:
            lines.insert(place + 2, f"{indent}  {rows[place - 1].note}")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Return where this was measured, as far as it explains the numbers."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }
