"""An arena's own rules, without network and without rows: places, letters, conversations, keys, and giving way."""

from __future__ import annotations

import pytest

from webapp.core.scenario import Scenario, Step
from webapp.core.spec import BackendSpec
from webapp.services.arena import KEPT_KEYS, MAX_LANES, Arena, Refused, Slot
from webapp.services.arenas import Arenas
from webapp.services.runs import Ask


class Watcher:
    """A follower that counts."""

    def __init__(self) -> None:
        self.woken: list[bool] = []

    def wake(self, urgent: bool) -> None:
        self.woken.append(urgent)

    def behind(self) -> bool:
        return False


def spec(slug: str) -> BackendSpec:
    return BackendSpec(slug, slug.upper(), "http://127.0.0.1:1/v1", "m")


def arena_of(*slugs: str) -> Arena:
    arena = Arena(ask=Ask(prompt="Hello"))
    for slug in slugs:
        arena.add(spec(slug))
    return arena


def slugs(arena: Arena) -> list[str]:
    return [slot.spec.slug for slot in arena.slots]


def letters(arena: Arena) -> str:
    return "".join(arena.letter(slot) for slot in arena.slots)


SCENARIO = Scenario(
    slug="s", key=1, title="S", blurb="b", figure="chat", system="Be brief.", max_tokens=7, budget_ms=0,
    steps=(Step("Hi"),),
)  # fmt: skip


def test_lane_ids_are_never_used_again() -> None:
    arena = arena_of("a", "b")
    first = arena.slots[1].id
    arena.remove(first)
    assert arena.add(spec("b")).id != first
    assert len({slot.id for slot in arena.slots}) == 2


def test_letters_follow_the_places() -> None:
    arena = arena_of("a", "b", "c")
    arena.move(arena.slots[2].id, -1)
    assert (slugs(arena), letters(arena)) == (["a", "c", "b"], "ABC")
    arena.remove(arena.slots[0].id)
    assert (slugs(arena), letters(arena)) == (["c", "b"], "AB")


@pytest.mark.parametrize(("place", "by", "after"), [(0, -1, "abc"), (2, 1, "abc"), (0, 1, "bac"), (2, -1, "acb")])
def test_a_lane_at_the_edge_stays_there(place: int, by: int, after: str) -> None:
    arena = arena_of("a", "b", "c")
    arena.move(arena.slots[place].id, by)
    assert slugs(arena) == list(after)


def test_there_is_room_for_eight_lanes_and_one_has_to_stay() -> None:
    arena = arena_of(*["x"] * MAX_LANES)
    with pytest.raises(Refused, match="room for 8"):
        arena.add(spec("y"))
    for slot in list(arena.slots[1:]):
        arena.remove(slot.id)
    with pytest.raises(Refused, match="has to stay"):
        arena.remove(arena.slots[0].id)


def test_too_many_lanes_at_once_leave_those_that_are_there() -> None:
    arena = arena_of("a")
    with pytest.raises(Refused, match="room for 8"):
        arena.set_lanes([(spec("x"), "")] * (MAX_LANES + 1))
    assert slugs(arena) == ["a"]


@pytest.mark.parametrize("verb", ["remove", "move", "swap", "rerun", "stop"])
def test_a_lane_that_is_gone_is_refused_in_a_sentence(verb: str) -> None:
    arena = arena_of("a", "b")
    arguments = {"move": (1,), "swap": (spec("x"),), "rerun": ("key",)}.get(verb, ())
    with pytest.raises(Refused, match="not here any more"):
        getattr(arena, verb)("zz", *arguments)


def test_swapping_a_lane_begins_its_conversation_anew() -> None:
    arena = arena_of("a", "b")
    arena.slots[0].history = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    assert arena.turn_number == 2
    arena.swap(arena.slots[0].id, spec("c"), "source")
    assert (slugs(arena), arena.slots[0].history, arena.slots[0].source) == (["c", "b"], [], "source")
    assert arena.turn_number == 1


def test_a_scenario_fills_the_prompt_and_forgets_the_conversation() -> None:
    arena = arena_of("a")
    arena.ask = Ask(prompt="x", seed=3, cold=True, order="sequential")
    arena.slots[0].history = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    arena.choose(SCENARIO)
    assert (arena.ask.prompt, arena.ask.system, arena.ask.max_tokens) == ("Hi", "Be brief.", 7)
    assert (arena.ask.seed, arena.ask.cold, arena.ask.order) == (3, True, "sequential")
    assert arena.slots[0].history == []
    arena.choose(None)
    assert arena.ask.scenario is None
    assert arena.ask.prompt == "Hi"


def test_nothing_to_run_and_nothing_to_run_again_are_refused() -> None:
    with pytest.raises(Refused, match="no lane"):
        Arena().begin(Ask(prompt="x"), "k")
    arena = arena_of("a")
    with pytest.raises(Refused, match="Nothing has run yet"):
        arena.rerun(arena.slots[0].id, "k")
    assert not arena.has_started("k")


def test_every_change_wakes_the_followers_urgently_and_raises_its_parts_version() -> None:
    arena, watcher = arena_of("a", "b"), Watcher()
    arena.followers.append(watcher)
    before = dict(arena.versions)
    arena.move(arena.slots[0].id, 1)
    arena.say("warn", "Mind the gap.")
    assert watcher.woken == [True, True]
    changed = {part for part, version in arena.versions.items() if version != before[part]}
    assert changed == {"lanes", "notice"}


def test_keys_are_few_and_short_whatever_is_sent() -> None:
    arena = arena_of("a")
    for number in range(KEPT_KEYS * 2):
        arena._remember(f"{number:04}" + "x" * 10_000)
    assert len(arena._keys) == KEPT_KEYS
    assert max(map(len, arena._keys)) <= 100
    assert arena.has_started(f"{KEPT_KEYS * 2 - 1:04}" + "x" * 10_000)
    assert not arena.has_started("")


def test_the_oldest_arena_that_nobody_follows_gives_way() -> None:
    arenas = Arenas(most=3)
    opened = [arenas.open([(spec("a"), "")], Ask(prompt="")) for _ in range(2)]
    opened[0].followers.append(Watcher())
    assert arenas.find(opened[1].id) is opened[1]
    later = [arenas.open([(spec("a"), "")], Ask(prompt="")) for _ in range(3)]
    assert arenas.find(opened[0].id) is opened[0]
    assert arenas.find(opened[1].id) is None
    assert [arenas.find(arena.id) is not None for arena in later] == [False, True, True]


def test_an_arena_that_was_looked_for_is_not_the_oldest() -> None:
    arenas = Arenas(most=2)
    first, second = (arenas.open([], Ask(prompt="")) for _ in range(2))
    arenas.find(first.id)
    arenas.open([], Ask(prompt=""))
    assert arenas.find(first.id) is first
    assert arenas.find(second.id) is None


def test_a_page_that_brings_its_address_keeps_it() -> None:
    arenas = Arenas()
    arena = arenas.open([(spec("a"), "")] * 20, Ask(prompt=""), "an-id-from-before")
    assert arenas.find("an-id-from-before") is arena
    assert len(arena.slots) == MAX_LANES


def test_ids_cannot_be_guessed() -> None:
    ids = {Arena().id for _ in range(100)}
    assert len(ids) == 100
    assert min(map(len, ids)) >= 22


def test_a_slot_begins_without_history_of_others() -> None:
    first, second = Slot("a1", spec("a")), Slot("b2", spec("b"))
    first.history.append({"role": "user", "content": "x"})
    assert second.history == []
