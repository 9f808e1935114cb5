"""The help page of what Splitsecond itself costs, and the file that the benchmark keeps for it."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

from django.test import Client
from django.urls import reverse

from webapp.services import speed


def test_the_speed_page_shows_every_kept_figure_beside_its_reference_and_says_what_is_missed() -> None:
    rows = speed.kept()
    html = unescape(Client().get(reverse("speed")).content.decode())
    lines = re.findall(r"<tr>.*?</tr>", html, re.DOTALL)[1:]
    assert rows
    assert len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        shown = [row[name].strip() for name in ("id", "figure", "ours", "reference", "ratio", "target", "note")]
        assert all(text in line for text in shown)
        assert ("missed" in line) == (row["met"] == "NO")


def test_figures_that_are_measured_again_take_the_place_of_the_old_ones(tmp_path: Path, monkeypatch: Any) -> None:
    def row(figure: str, ours: str) -> dict[str, str]:
        return {"id": "P4", "figure": figure, "ours": ours}

    monkeypatch.setattr(speed, "KEPT", tmp_path / "speed.json")
    speed.kept.cache_clear()
    try:
        assert speed.kept() == []
        speed.keep([row("memory", "2"), row("delay", "1")])
        speed.keep([row("close", "5"), row("memory", "3")])
        assert speed.kept() == [row("memory", "3"), row("delay", "1"), row("close", "5")]
    finally:
        monkeypatch.undo()
        speed.kept.cache_clear()
