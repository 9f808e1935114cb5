"""Reads from the event loop, in a thread of their own.

Not asgiref's shared thread: one slow query there would hold up every socket of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `read(...)`, run in a worker thread whose database connection is closed afterwards."""

    def work() -> T:
        close_old_connections()
        try:
            return read(*args, **kwargs)
        finally:
            close_old_connections()

    return await asyncio.to_thread(work)
