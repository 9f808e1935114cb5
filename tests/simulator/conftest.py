"""A simulator on a real socket, and a client for it."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from tests.simulator.examples import PROFILES
from webapp.simulator.answers import load_book
from webapp.simulator.server import build_runner


@pytest.fixture
async def runner() -> AsyncIterator[web.AppRunner]:
    """Serve the example profiles on a free port."""
    runner = build_runner(PROFILES, load_book())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner
    await runner.cleanup()


@pytest.fixture
async def simulator(runner: web.AppRunner) -> str:
    """Return the address of the simulator."""
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"


@pytest.fixture
async def client(simulator: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client of the simulator with a single connection, so that broken framing shows."""
    connector = aiohttp.TCPConnector(limit=1)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(simulator, connector=connector, timeout=timeout) as session:
        yield session
