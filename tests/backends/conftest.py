"""A scripted server, our client against it, and a key that must never be seen again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.upstreams import Upstream, scripted_upstream
from webapp.backends.openai_http import OpenAIHTTP

CANARY = "sk-canary-0123456789abcdef"


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a key into the environment, under the name CANARY."""
    monkeypatch.setenv("CANARY", CANARY)
    return CANARY


@pytest.fixture
async def up() -> AsyncIterator[Upstream]:
    async with scripted_upstream(gap_s=0.002) as upstream:
        yield upstream


@pytest.fixture
async def client() -> AsyncIterator[OpenAIHTTP]:
    http = OpenAIHTTP()
    yield http
    await http.close()
