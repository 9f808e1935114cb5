"""Opening an arena: which lanes and which prompt a page begins with."""

from __future__ import annotations

from collections.abc import Sequence

from webapp import queries
from webapp.core.scenario import Scenario
from webapp.core.spec import BackendSpec
from webapp.services.archive import ask_of, history_of
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


async def open_again(run_id: str) -> Arena:
    """Return a new arena that asks what a kept run asked: its backends, prompt, scenario, settings, conversation.

    Nothing is sent. Where the run is not there it is an arena as on a first visit; that one, and a backend that is no
    longer there, the arena's notice tells.
    """
    row = None if "\0" in run_id else await in_thread(queries.question, run_id)  # PostgreSQL cannot look for NUL
    if row is None:
        arena = await open_arena()
        arena.say("warn", "The run to run again is not kept here, so this is an arena as on a first visit.")
        return arena
    turns = [turn for turn in row.turns.all() if turn.step == 0]
    arena = await open_arena([turn.backend_slug for turn in turns])
    arena.ask = ask_of(row)
    shown = {slot.spec.slug for slot in arena.slots}
    if row.asked_by == "page":  # others may have sent messages of any form
        for slot, turn in zip(arena.slots, [turn for turn in turns if turn.backend_slug in shown], strict=False):
            slot.history = history_of(turn)
    if gone := [turn.label for turn in turns if turn.backend_slug not in shown]:
        arena.say("warn", f"Not in a lane, because it is no longer among the backends: {', '.join(gone)}.")
    return arena


def first_ask(scenario: Scenario | None) -> Ask:
    if scenario is None:
        return Ask(prompt="", max_tokens=400)
    prompt = scenario.steps[0].prompt
    return Ask(prompt=prompt, scenario=scenario, system=scenario.system, max_tokens=scenario.max_tokens)


def _lanes(slugs: list[str]) -> list[tuple[BackendSpec, str]]:
    rows = {row.slug: row for row in queries.all_backends()}
    chosen = [rows[slug] for slug in slugs if slug in rows] or list(rows.values())[:FIRST_LANES]
    return [(queries.spec_of(row), row.source) for row in chosen[:MAX_LANES]]
