"""Opening an arena: which lanes and which prompt a page begins with."""

from __future__ import annotations

from collections.abc import Sequence

from webapp import queries
from webapp.core.scenario import Scenario
from webapp.core.spec import BackendSpec
from webapp.services.arena import MAX_LANES, Arena
from webapp.services.arenas import arenas
from webapp.services.database import in_thread
from webapp.services.runs import Ask
from webapp.services.scenarios import scenarios

FIRST_LANES = 4
ID_CHARS = 40


async def open_arena(slugs: Sequence[str] = (), arena_id: str = "", scenario: str = "") -> Arena:
    """Return a new arena with the named backends as lanes (the first four where none is known) and a prompt typed in.

    `arena_id` is kept where a returning page brings its own, so that its address stays valid.
    """
    chosen = await in_thread(_lanes, list(slugs))
    if arena_id and (arena := arenas.find(arena_id[:ID_CHARS])) is not None:
        return arena  # another tab of the same page was first
    found = scenarios()
    first = found.get(scenario) or next(iter(found.values()), None)
    return arenas.open(chosen, first_ask(first), arena_id[:ID_CHARS])


def first_ask(scenario: Scenario | None) -> Ask:
    if scenario is None:
        return Ask(prompt="", max_tokens=400)
    prompt = scenario.steps[0].prompt
    return Ask(prompt=prompt, scenario=scenario, system=scenario.system, max_tokens=scenario.max_tokens)


def _lanes(slugs: list[str]) -> list[tuple[BackendSpec, str]]:
    rows = {row.slug: row for row in queries.all_backends()}
    chosen = [rows[slug] for slug in slugs if slug in rows] or list(rows.values())[:FIRST_LANES]
    return [(queries.spec_of(row), row.source) for row in chosen[:MAX_LANES]]
