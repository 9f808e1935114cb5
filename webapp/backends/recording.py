"""Recordings as backends: an answer that was measured once, played again with its own timing, without a network.

The prompt is not looked at; the lane's badge says RECORDED. Its times are those of the recording, late by as much as
this event loop is late (asyncio's timers have steps of 1 ms), never early.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from webapp.backends.base import Answer
from webapp.clock import now_ns
from webapp.core.errors import StreamError
from webapp.core.recording import Recording, from_json
from webapp.core.spec import BackendSpec, PromptSpec
from webapp.core.timing import Marks

NS_PER_S = 1_000_000_000
PREFIX = "recording:"


class RecordingPlayer:
    """Plays the file that a backend's `recording:PATH` names."""

    @asynccontextmanager
    async def open(self, spec: BackendSpec, prompt: PromptSpec, marks: Marks) -> AsyncIterator[Answer]:
        recording = await asyncio.to_thread(_load, Path(spec.base_url.removeprefix(PREFIX)))
        marks.sent = now_ns()
        await _until(marks.sent + recording.headers_ns)
        marks.headers = now_ns()
        yield Answer(reads=_play(recording, marks.sent), reused=True, simulated=False)

    async def warm(self, spec: BackendSpec, timeout_s: float) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing is held."""


async def _play(recording: Recording, started_ns: int) -> AsyncIterator[bytes]:
    for due_ns, data in recording.schedule():
        await _until(started_ns + due_ns)
        yield data


async def _until(due_ns: int) -> None:
    left_ns = due_ns - now_ns()
    if left_ns > 0:
        await asyncio.sleep(left_ns / NS_PER_S)


def _load(path: Path) -> Recording:
    try:
        return from_json(path.read_bytes())
    except OSError:
        raise StreamError(
            "not_found", "The recording's file is gone; record the answer again.", permanent=True
        ) from None
    except ValueError as error:
        raise StreamError("protocol", str(error), permanent=True) from None
