"""The prepared scenarios, read once from webapp/scenarios and checked while reading."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from webapp.core.scenario import Scenario, from_data

FOLDER = Path(__file__).resolve().parent.parent / "scenarios"


@cache
def scenarios() -> dict[str, Scenario]:
    """Return every scenario by slug, in the order of their number keys.

    Raises ValueError with the file's and the field's name where one is wrong.
    """
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        try:
            found.append(from_data(tomllib.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, TypeError) as error:
            raise ValueError(f"scenarios/{path.name}: {error}") from None
    return {scenario.slug: scenario for scenario in sorted(found, key=lambda scenario: scenario.key)}
