"""P2: tokens per second and core, beside LiteLLM's proxy.

Measured where LITELLM_PYTHON names a Python that has it; nothing installs it, for it brings a hundred packages along.
"""

from __future__ import annotations

import os
import random
from statistics import median

from tests.bench import processes
from tests.bench.processes import RELAY_CORE, Process, free_port
from tests.bench.speed import cell, settle
from tests.bench.streams import SSE, until
from tests.bench.table import Row, missing
from tests.bench.world import World, ending

STREAMS = 8
START_S = 90.0
CONFIG = """
model_list:
  - model_name: unlimited
    litellm_params: {{model: openai/ref-maxx2000000, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
litellm_settings: {{telemetry: false}}
"""
# No price list from the network, and no key: it serves this loopback for some seconds.
ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "DO_NOT_TRACK": "1",
}


class LiteLLM(Process):
    """LiteLLM's proxy with one worker, in front of the reference stream."""

    def __init__(self, python: str, world: World) -> None:
        config = world.directory / "litellm.yaml"
        config.write_text(CONFIG.format(upstream=world.reference.port))
        self.port = free_port()
        arguments = ["--config", str(config), "--host", "127.0.0.1", "--port", str(self.port), "--num_workers", "1"]
        self.launch(
            [python, "-c", "from litellm import run_server; run_server()", *arguments],
            core=RELAY_CORE,
            env=ENVIRONMENT,
            log=world.directory / "litellm.log",
        )


async def p2(world: World) -> list[Row]:
    """Streams as fast as they are taken; the relay's core is full, or its CPU time says what it would take."""
    figure = f"tokens per second and core, {STREAMS} unlimited streams, SSE"
    python = os.environ.get("LITELLM_PYTHON")
    if not python:
        return [missing("P2", figure, "n/a: LITELLM_PYTHON names no Python with LiteLLM's proxy")]
    rates: dict[str, list[float]] = {}
    with ending(LiteLLM(python, world)) as litellm:

        async def listening() -> bool:
            return processes.is_listening(litellm.port)

        if not await until(listening, START_S):
            return [missing("P2", figure, "n/a: LiteLLM's proxy did not start")]
        jobs = ["ours", "litellm"] * world.repeats
        random.shuffle(jobs)
        for name in jobs:
            relay = world.app if name == "ours" else litellm
            readers = [SSE(relay.port, {"model": "unlimited"}) for _ in range(STREAMS)]
            seen = await cell(relay, readers, world.window_s)
            rates.setdefault(name, []).append(seen.tokens / seen.cpu_s)
            await settle(world)
    ours, theirs = median(rates["ours"]), median(rates["litellm"])
    ratio = ours / theirs
    row = Row(
        "P2", figure, f"{ours:,.0f}", f"LiteLLM {theirs:,.0f}", ratio, f"{ratio:.0f}×", 25, 50, more=True, raw=rates
    )
    return [row]
