"""Asks the servers behind a run's backends once a second what they are doing, where they publish it at all.

On the master (or the only process) alone. A server that does not answer in vLLM's names is not asked again.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Sequence

import gevent  # type: ignore[import-untyped]

from webapp.core.loadplan import Target
from webapp.core.servermetrics import ServerState, read

EVERY_S = 1.0
TIMEOUT_S = 2.0
MOST_BYTES = 4 << 20
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Tell = Callable[[str, ServerState], None]


class Servers:
    """Calls `tell(slug, state)` for each target again and again, from `begin` to `close`."""

    def __init__(self, targets: Sequence[Target], tell: Tell) -> None:
        self._targets = [target for target in targets if target.metrics_url]
        self._tell = tell
        self._known: set[str] = set()
        self._greenlets: list[gevent.Greenlet] = []

    def begin(self) -> None:
        addresses = {target.metrics_url for target in self._targets}
        self._greenlets = [gevent.spawn(self._follow, address) for address in addresses]

    def close(self) -> None:
        gevent.killall(self._greenlets, block=False)

    def _follow(self, address: str) -> None:
        while self._look(address):
            gevent.sleep(EVERY_S)

    def look(self) -> None:
        """Ask each server once more, now."""
        gevent.joinall([gevent.spawn(self._look, address) for address in self._known], timeout=TIMEOUT_S)

    def _look(self, address: str) -> bool:
        """Ask and tell; return whether it is worth while to ask again. A server that has once told may be busy."""
        try:
            text = _fetch(address)
        except (OSError, ValueError):
            return address in self._known
        for target in self._targets:
            if target.metrics_url == address and (state := read(text, target.metrics_model)) is not None:
                self._known.add(address)
                self._tell(target.slug, state)
        return address in self._known


def _fetch(address: str) -> str:
    with _direct.open(address, timeout=TIMEOUT_S) as answer:
        return str(answer.read(MOST_BYTES).decode("utf-8", "replace"))
