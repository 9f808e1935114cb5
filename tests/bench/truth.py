"""The tool's own error: what a turn reports against when the reference says it wrote, as a curve over load."""

from __future__ import annotations

import asyncio
import json
import subprocess

from tests.bench.processes import RELAY_CORE, ROOT, pin, python_module
from tests.bench.streams import quantile
from tests.bench.table import Row
from tests.bench.world import World

COUNTS = (1, 10, 50, 100)
QUICK_COUNTS = (1, 10)


async def truth(world: World) -> list[Row]:
    """Return one row for each number of streams: late first tokens and wrong gaps, p50 and p99."""
    return [await _row(world, count) for count in (QUICK_COUNTS if world.quick else COUNTS)]


async def _row(world: World, count: int) -> Row:
    command = python_module(
        "tests.bench.truth_client", "--upstream", str(world.reference.port), "--streams", str(count)
    )
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pin(child.pid, RELAY_CORE)
    said, _ = await asyncio.to_thread(child.communicate)
    errors = {name: sorted(values) for name, values in json.loads(said).items()}
    ttft_ms = [quantile(errors["ttft_late_us"], share) / 1000 for share in (0.5, 0.99)]
    gap_ms = [quantile(errors["gap_error_us"], share) / 1000 for share in (0.5, 0.99)]
    return Row(
        f"T{count}",
        f"error of TTFT, and of chunk gaps, p50 / p99: {count} × 50 tok/s",
        f"{ttft_ms[0]:.2f} / {ttft_ms[1]:.2f} ms, {gap_ms[0]:.2f} / {gap_ms[1]:.2f} ms",
        "true emission",
        ttft_ms[0],
        f"{ttft_ms[0]:.2f} ms",
        2.0,
        0.2,
        raw={"ttft_ms": ttft_ms, "gap_ms": gap_ms},
    )
