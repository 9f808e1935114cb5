"""Our client, a scripted server, and a reference stream in a process of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from tests.upstreams import Upstream, scripted_upstream
from webapp.backends.openai_http import OpenAIHTTP


@pytest.fixture
async def client() -> AsyncIterator[OpenAIHTTP]:
    http = OpenAIHTTP()
    yield http
    await http.close()


@pytest.fixture
async def up() -> AsyncIterator[Upstream]:
    async with scripted_upstream() as upstream:
        yield upstream


@pytest.fixture
async def reference() -> AsyncIterator[str]:
    """Yield the URL of a reference server in a process of its own."""
    program = [sys.executable, "-m", "tests.upstreams.reference"]
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().split()[1]
    finally:
        process.kill()
        await process.communicate()
