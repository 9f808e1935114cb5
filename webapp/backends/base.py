"""What a kind of backend must be able to do. One module per wire kind; `KINDS` in the package lists them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from webapp.core.spec import BackendSpec, PromptSpec
from webapp.core.timing import Marks


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has begun: its raw bytes as the socket delivers them, and what its head said.

    `reused` is True where the request went out on a connection that was already open; `simulated` where the server
    itself says that it only plays a model (header `X-Simulated`).
    """

    reads: AsyncIterator[bytes]
    reused: bool
    simulated: bool


class Backend(Protocol):
    """An asyncio client for one wire kind, shared by all requests of the process."""

    def open(self, spec: BackendSpec, prompt: PromptSpec, marks: Marks) -> AbstractAsyncContextManager[Answer]:
        """Send the prompt and enter with the answer's head read; leaving the block closes the upstream at once.

        Fills `marks.connect`, `connected`, `sent` and `headers`. Raises StreamError for every way in which no stream
        begins. Never retries, follows no redirect, uses no proxy from the environment.
        """
        ...

    async def warm(self, spec: BackendSpec, timeout_s: float) -> None:
        """Open a connection and put it into the pool, so that connection set-up stays outside of the figures.

        Best effort: failures are not reported here, they show when the request itself is sent.
        """
        ...

    async def close(self) -> None: ...
