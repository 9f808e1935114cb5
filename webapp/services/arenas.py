"""The arenas of this process, found by their ids."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from webapp.core.spec import BackendSpec
from webapp.services.arena import MAX_LANES, Arena
from webapp.services.runs import Ask

MAX_ARENAS = 500


class Arenas:
    """The arenas of this process. The oldest without a follower give way; a page of one of them starts afresh."""

    def __init__(self, most: int = MAX_ARENAS) -> None:
        self._most = most
        self._arenas: OrderedDict[str, Arena] = OrderedDict()

    def find(self, arena_id: str) -> Arena | None:
        arena = self._arenas.get(arena_id)
        if arena is not None:
            self._arenas.move_to_end(arena_id)
        return arena

    def open(self, lanes: list[tuple[BackendSpec, str]], ask: Ask, arena_id: str = "") -> Arena:
        """Make an arena with these lanes, under the id that a returning page already has where it brings one."""
        arena = Arena(ask=ask)
        if arena_id:
            arena.id = arena_id
        for spec, source in lanes[:MAX_LANES]:
            arena.add(spec, source)
        self._arenas[arena.id] = arena
        self._drop_idle()
        return arena

    def __iter__(self) -> Iterator[Arena]:
        return iter(list(self._arenas.values()))

    def _drop_idle(self) -> None:
        for arena_id, arena in list(self._arenas.items()):
            if len(self._arenas) <= self._most:
                return
            if not arena.running and not arena.followers:
                del self._arenas[arena_id]


arenas = Arenas()
