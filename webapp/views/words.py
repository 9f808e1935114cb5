"""Numbers as people read them, wherever they stand on a page."""

from __future__ import annotations

NA = "n/a"
NOT_YET = "–"
THIN = "\u2009"
HUGE = 1e7  # from here on a power of ten: no count that is meant is larger, and no column has room for its digits


def time_text(ms: float | None, missing: str = NA) -> tuple[str, str]:
    """Return a time's digits and unit, three significant digits, at most six characters."""
    if ms is None:
        return missing, ""
    if ms < 9.995:
        return f"{ms:.2f}", "ms"
    if ms < 99.95:
        return f"{ms:.1f}", "ms"
    if ms < 999.5:
        return f"{ms:.0f}", "ms"
    if ms < 9_995:
        return f"{ms / 1000:.2f}", "s"
    return (f"{ms / 1000:.1f}" if ms < HUGE * 1000 else _power_text(ms / 1000)), "s"


def count_text(value: float | None, missing: str = NA) -> str:
    """Return a count or a rate: "55.2", "2059", "12 059", "1.1e15", "n/a". Four digits stand together, as in tables."""
    if value is None:
        return missing
    if abs(value) >= HUGE:
        return _power_text(value)
    if value < 99.95 and value != int(value):
        return f"{value:.1f}"
    return f"{value:.0f}" if value < 9_999.5 else f"{value:,.0f}".replace(",", THIN)


def _power_text(value: float) -> str:
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}" if power else digits
