"""Whether load generators agree: the same open loop at one simulated machine, reported by ours and by its peers.

Arrivals are Poisson, so that none of them is in step with the machine: in a closed loop each asks again at a moment of
its own in the running step, and is answered differently for that. What each reports as TTFT is held against the stamps
that the simulator puts into the same answers.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import orjson

from tests.bench.loadpeers import PROMPT, Answer, Report, Work, peers
from tests.bench.processes import LOAD_CORE, ROOT, Process, python_module
from tests.bench.table import Row
from tests.bench.usage import Usage
from tests.bench.world import World, ending

PROFILE, TOKENS, RATE = "h100x2-llama-70b", 64, 4.0
REQUESTS, QUICK_REQUESTS = 120, 40
SAME = 0.03


async def agreement(world: World) -> list[Row]:
    """Return what each generator reports of TTFT beside the truth, and of TPOT beside ours."""
    simulator = Process(
        python_module("webapp.simulator", "--port", "0"),
        core=LOAD_CORE,
        ready=r"listening on http://127\.0\.0\.1:(\d+)",
        log=world.directory / "simulator.log",
    )
    with ending(simulator):
        requests = QUICK_REQUESTS if world.quick else REQUESTS
        work = Work(f"http://127.0.0.1:{simulator.port}", PROFILE, TOKENS, requests, rate=RATE)
        ours = await _ours(world, work)
        theirs = {peer.name: await peer.run(world, work) for peer in peers()}
    rows = [_true_row(name, report) for name, report in {"ours": ours, **theirs}.items()]
    return [*rows, *(_tpot_row(ours, name, report) for name, report in theirs.items())]


def _true_row(name: str, report: Report) -> Row:
    said, true = report.middle("ttft_ms"), report.middle("true_ttft_ms")
    figure = f"TTFT p50 as {name} reports it, beside the simulator's stamps"
    if said is None or true is None:
        return Row("A", figure, "n/a" if said is None else f"{said:.1f} ms", note="keeps no chunks with the stamps")
    off = abs(said / true - 1)
    target = SAME if name == "ours" else None
    note = f"{len(report.answers)} answers"
    return Row(
        "A", figure, f"{said:.1f} ms", f"true {true:.1f} ms", off, f"{said / true - 1:+.1%}", target, 0.01, note=note
    )


def _tpot_row(ours: Report, name: str, report: Report) -> Row:
    mine, theirs = ours.middle("tpot_ms"), report.middle("tpot_ms")
    assert mine is not None
    assert theirs is not None
    texts = (f"{mine:.2f} ms", f"{name} {theirs:.2f} ms")
    return Row("A", f"TPOT p50 beside {name}", *texts, abs(mine / theirs - 1), f"{mine / theirs - 1:+.1%}", SAME, 0.01)


async def _ours(world: World, work: Work) -> Report:
    folder = world.directory / "agreement"
    folder.mkdir()
    target = {"slug": "sim", "url": f"{work.url}/v1", "model": work.model}
    plan: dict[str, Any] = {
        "targets": [target], "wire": "direct", "mode": "rate", "duration_s": work.requests / work.rate,
        "schedule": {"kind": "poisson", "rates": [[0, work.rate]]}, "warmup_s": 0.0, "cooldown_s": 0.0, "mix": "file",
        "prompts": [{"text": PROMPT, "max_tokens": work.tokens, "exactly": True}], "detail": "marks",
    }  # fmt: skip
    (folder / "params.json").write_bytes(orjson.dumps(plan))
    command = [sys.executable, "-m", "loadtests", str(folder / "params.json"), str(folder)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    await process.wait()
    return Report(_answers(folder / "requests.jsonl"), Usage())


def _answers(path: Path) -> list[Answer]:
    found = []
    for record in map(orjson.loads, path.read_bytes().splitlines()):
        if record["outcome"] == "done":
            marks = record["marks_us"]
            stamps = next(times["emitted"] for times in record["server_ms"].values() if "emitted" in times)
            true_ms = (stamps["first_ns"] - stamps["arrived_ns"]) / 1e6
            found.append(Answer((marks["first_token"] - marks["sent"]) / 1000, record["tpot_us"] / 1000, true_ms))
    return found
