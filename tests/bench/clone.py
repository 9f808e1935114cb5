"""P14: from a fresh clone to the first streamed answer with `make demo`, and the second start."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.processes import LOAD_CORE, RELAY_CORE, ROOT, free_port
from tests.bench.streams import chat_request
from tests.bench.table import Row, missing
from tests.bench.world import World

START_S = 300.0
END_S = 15.0
MODEL = "wse3-llama-70b"
NOT_FOR_IT = ("VIRTUAL_ENV", "VAR_DIR", "DISPLAY", "WAYLAND_DISPLAY", "DJANGO_SETTINGS_MODULE")


async def p14(world: World) -> list[Row]:
    """Clone what is committed, run `make demo`, ask; stop, run it again, ask. pip's own cache is used as it is."""
    figure = "fresh clone, `make demo` → first streamed token"
    os.sched_setaffinity(0, {RELAY_CORE, LOAD_CORE})
    try:
        with tempfile.TemporaryDirectory(prefix="clone-", ignore_cleanup_errors=True) as directory:
            clone = Path(directory) / "splitsecond"
            started_s = time.monotonic()
            done = subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], capture_output=True, text=True)
            if done.returncode:
                return [missing("P14", figure, f"n/a: {done.stderr.strip()}")]
            first_s = await _start(clone, started_s)
            second_s = await _start(clone, time.monotonic())
    finally:
        os.sched_setaffinity(0, {LOAD_CORE})
    return [
        Row(
            "P14", figure, f"{first_s:.1f} s", "", first_s, f"{first_s:.1f} s", 120, 60, note="pip's cache may be warm"
        ),
        Row("P14", "  second start → first token", f"{second_s:.2f} s", "", second_s, f"{second_s:.2f} s", 3, 1),
    ]


async def _start(clone: Path, started_s: float) -> float:
    """Return the seconds from `started_s` until a token came; leaves nothing running."""
    async with _demo(clone) as port:
        await _first_token(port, started_s + START_S)
        return time.monotonic() - started_s


@asynccontextmanager
async def _demo(clone: Path) -> AsyncIterator[int]:
    port = free_port()
    env = {name: value for name, value in os.environ.items() if name not in NOT_FOR_IT}
    env |= {"PORT": str(port), "SIM_PORT": str(free_port())}
    log = (clone.parent / "demo.log").open("ab")
    child = subprocess.Popen(["make", "demo"], cwd=clone, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield port
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            await asyncio.to_thread(child.wait, END_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        log.close()


async def _first_token(port: int, deadline_s: float) -> None:
    while time.monotonic() < deadline_s:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        try:
            writer.write(chat_request(port, {"model": MODEL, "max_tokens": 20}))
            async with asyncio.timeout(10):
                await reader.readuntil(b'"content":"')
            return
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            await asyncio.sleep(0.05)  # the app answers, the simulator may not yet
        finally:
            writer.close()
    raise TimeoutError(f"no answer from `make demo` within {START_S:g} s")
