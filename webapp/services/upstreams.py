"""The clients of this process, one for each wire kind, made inside the running event loop when first needed."""

from __future__ import annotations

import asyncio

from webapp.backends import KINDS, Backend
from webapp.core.spec import BackendSpec


class Upstreams:
    """Lends the client for a backend's kind; all requests of a loop share it and its connections."""

    def __init__(self) -> None:
        self._clients: dict[tuple[int, str], Backend] = {}

    def client(self, spec: BackendSpec) -> Backend:
        key = (id(asyncio.get_running_loop()), spec.kind)
        if key not in self._clients:
            self._clients[key] = KINDS[spec.kind]()
        return self._clients[key]

    async def close(self) -> None:
        """Close the clients of the running loop."""
        loop_id = id(asyncio.get_running_loop())
        for key in [key for key in self._clients if key[0] == loop_id]:
            await self._clients.pop(key).close()


upstreams = Upstreams()
