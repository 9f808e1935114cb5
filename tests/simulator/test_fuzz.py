"""Anything that the published description allows, and much that it does not, over a real socket: never a 5xx.

Runs where schemathesis is installed; it reads /openapi.json like any other client.
"""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.simulator.examples import TABLE, profile
from webapp.simulator.answers import load_book
from webapp.simulator.server import build_runner

pytest.importorskip("schemathesis")

# All of schemathesis' checks but one: positive_data_acceptance. What a request may ask for depends on two of its
# fields together (the prompt's length and max_tokens must fit the context), which a schema cannot say.
LEFT_OUT = "positive_data_acceptance"


@pytest.fixture
def address() -> Iterator[str]:
    """Serve a fast model in a thread; its short context keeps the longest legal answer short."""
    model = {**TABLE["model"], "context_tokens": 1024}
    served = {"quick": profile(tok_s=20_000, api_ms=0, model=model, reasoning_field="reasoning", reasoning_tokens=10)}
    ready, loop, found = threading.Event(), asyncio.new_event_loop(), []
    over = asyncio.Event()

    async def serve() -> None:
        runner = build_runner(served, load_book())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.append("http://{}:{}".format(*runner.addresses[0][:2]))
        ready.set()
        await over.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    yield found[0]
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


def test_the_server_holds_what_its_description_says(address: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"]
    options = ["--exclude-checks", LEFT_OUT, "--max-examples", "40", "--request-timeout", "60", "--seed", "1"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=900, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
