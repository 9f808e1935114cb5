"""Figures of the load generator: its error against the reference stream, its cost per token, its result page.

Peers are measured beside it where they are installed, see `loadpeers`; of several the better one is the reference.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from tests.bench.loadpeers import RAMP_S, STAMP, Peer, Work, peers
from tests.bench.processes import RELAY_CORE, ROOT
from tests.bench.streams import quantile
from tests.bench.table import Row, missing
from tests.bench.usage import Usage, followed, steady, tokens_between
from tests.bench.world import World

RATE, TOKENS, START_MS = 20, 60, 200
MODEL = f"ref-{RATE}x{TOKENS}+{START_MS}ms"
UNLIMITED = "ref-maxx500"
USERS = 100
NO_PEERS = "n/a: BENCH_AIPERF, BENCH_GUIDELLM and BENCH_TOKENIZER name no peer and no tokenizer"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a generator reported of the reference stream, and what it used."""

    ttft_errors_ms: list[float]
    gap_errors_ms: list[float]
    us_per_token: float  # while all users were at work
    whole_s: float  # CPU time from the start of its process to the end


async def p10(world: World) -> list[Row]:
    """P10 and P11: 100 users on a steady stream, starts spread over one answer; and the truth at 10, 100, 300."""
    rows = []
    ours: list[Seen] = []
    for users in (10, USERS, 300, *[USERS] * (world.repeats - 1)):
        seen = await run_ours(world, MODEL, users, ramp_s=RAMP_S, duration_s=8 if world.quick else 14)
        ours += [seen] if users == USERS else []
        first, gaps = sorted(seen.ttft_errors_ms), sorted(seen.gap_errors_ms)
        ttft = f"{quantile(first, 0.5):.1f} / {quantile(first, 0.99):.1f} ms"
        gap = f"{quantile(gaps, 0.5) * 1000:.0f} / {quantile(gaps, 0.99) * 1000:.0f} µs"
        note = f"gap error {gap}; {seen.us_per_token:.0f} µs of CPU per token; {len(first)} answers"
        rows.append(Row("P10t", f"load generator: TTFT error p50 / p99, {users} users", ttft, note=note))
    theirs = {peer.name: await run_peer(world, peer) for peer in peers()}
    if not theirs:
        return [
            *rows,
            missing("P10", "TTFT error p99 beside peers", NO_PEERS),
            missing("P11", "CPU per token", NO_PEERS),
        ]
    errors, costs = (
        {name: value(seen) for name, seen in theirs.items()} for value in (middle_error_ms, middle_cost_us)
    )
    wholes = {name: median(seen.whole_s for seen in runs) for name, runs in {"ours": ours, **theirs}.items()}
    whole = ", ".join(f"{name} {used_s:.1f} s" for name, used_s in wholes.items())
    return [
        *rows,
        _ratio("P10", f"TTFT error p99, {USERS} users", middle_error_ms(ours), errors, "ms", 1 / 5, 1 / 20),
        replace(
            _ratio("P11", f"CPU per token, {USERS} users", middle_cost_us(ours), costs, "µs", 1 / 5, 1 / 15),
            note=f"while all users are at work; whole processes of some {USERS * 4} answers: {whole}",
        ),
    ]


async def run_peer(world: World, peer: Peer) -> list[Seen]:
    """Run another generator at the same stream with the same users."""
    found = []
    for _ in range(world.repeats):
        before_ns = time.monotonic_ns()
        work = Work(f"http://127.0.0.1:{world.reference.port}", MODEL, TOKENS, USERS * 4, users=USERS)
        report = await peer.run(world, work)
        streams = await streams_since(world, before_ns)
        true_ms = true_ttfts(streams)
        errors_ms = [a.ttft_ms - true_ms[a.stamp_ns] for a in report.answers if a.stamp_ns in true_ms]
        found.append(Seen(errors_ms, [], us_per_token(report.usage, streams, USERS), report.usage.whole_s))
    return found


def us_per_token(usage: Usage, streams: Sequence[dict[str, Any]], users: int) -> float:
    """Return the CPU time per token while all users were at work, µs."""
    start_ns, end_ns = steady(streams, users)
    return usage.between(start_ns, end_ns) * 1e6 / tokens_between(streams, start_ns, end_ns)


def middle_error_ms(runs: Sequence[Seen]) -> float:
    return median(quantile(sorted(seen.ttft_errors_ms), 0.99) for seen in runs)


def middle_cost_us(runs: Sequence[Seen]) -> float:
    return median(seen.us_per_token for seen in runs)


async def p12(world: World) -> list[Row]:
    """Answers of 500 tokens as fast as they come, 20 users: tokens per second of CPU, beside bare gevent sockets."""
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(world.repeats):
        seen = await run_ours(world, UNLIMITED, 20, ramp_s=0.0, duration_s=6)
        rates["ours"].append(1e6 / seen.us_per_token)
        rates["bare"].append(await run_bare(world))
    ours, bare = median(rates["ours"]), median(rates["bare"])
    figure = "load generator: tokens parsed per second of CPU"
    ratio = ours / bare
    texts = (f"{ours:,.0f}", f"bare {bare:,.0f}")
    return [Row("P12", figure, *texts, ratio, f"{ratio:.2f}×", 0.5, 0.9, more=True, raw=rates)]


async def p15(world: World) -> list[Row]:
    """The result page of a run of a million requests beside that of a thousand, both made by the run's own writers."""
    figure = "result page, 1,000,000 requests beside 1,000"
    command = [sys.executable, "-m", "tests.bench.loadrows"]
    env = {**os.environ, "VAR_DIR": str(world.directory)}
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=env, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        return [missing("P15", figure, "the two runs could not be made")]
    ids = out.decode().split()
    times: dict[str, list[float]] = {id: [] for id in ids}
    for _ in range(20):
        for id in ids:
            status, seconds = await get(world.app.port, f"/load/{id}/")
            if status != 200:
                return [missing("P15", figure, f"n/a: /load/ answers {status}")]
            times[id].append(seconds)
    small, large = (median(times[id]) * 1000 for id in ids)
    return [Row("P15", figure, f"{large:.1f} ms", f"{small:.1f} ms", large / small, f"{large / small:.2f}×", 3, 1.2)]


async def run_ours(world: World, model: str, users: int, *, ramp_s: float, duration_s: float) -> Seen:
    """Run our generator straight at the reference stream and return what it reported."""
    folder = world.directory / f"load-{time.monotonic_ns()}"
    folder.mkdir()
    tokens = 500 if model == UNLIMITED else TOKENS
    plan = {
        "targets": [{"slug": "ref", "url": f"http://127.0.0.1:{world.reference.port}/v1", "model": model}],
        "wire": "direct", "users": users, "duration_s": duration_s, "warmup_s": ramp_s, "cooldown_s": 0.0,
        "ramp_s": ramp_s, "mix": f"fixed:20/{tokens}", "detail": "marks" if model == UNLIMITED else "text",
    }  # fmt: skip
    (folder / "params.json").write_bytes(orjson.dumps(plan))
    command = [sys.executable, "-m", "loadtests", str(folder / "params.json"), str(folder)]
    before_ns = time.monotonic_ns()
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    os.sched_setaffinity(process.pid, {RELAY_CORE})
    usage = await followed(process)
    streams = await streams_since(world, before_ns)
    first_ms, gaps_ms = _read_ours(folder, true_ttfts(streams))
    return Seen(first_ms, gaps_ms, us_per_token(usage, streams, users), usage.whole_s)


async def run_bare(world: World) -> float:
    """Return the tokens per second of CPU of bare gevent sockets."""
    command = [sys.executable, "-m", "tests.bench.bare_load", str(world.reference.port), UNLIMITED, "20", "6"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    os.sched_setaffinity(process.pid, {RELAY_CORE})
    out, _ = await process.communicate()
    _, tokens, _, used_s = out.decode().split()
    return int(tokens) / float(used_s)


async def streams_since(world: World, start_ns: int) -> list[dict[str, Any]]:
    """Return what the reference stream has logged of the requests that arrived since an instant, monotonic ns."""
    streams = await asyncio.to_thread(_log, world.reference.port)
    return [stream for stream in streams if stream["arrival_ns"] >= start_ns]


def true_ttfts(streams: Sequence[dict[str, Any]]) -> dict[int | None, float]:
    """Return, by the stamp in each answer's first token, how long after its request's arrival that was written, ms."""
    return {stream["written_ns"]: (stream["written_ns"] - stream["arrival_ns"]) / 1e6 for stream in streams}


def _log(port: int) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/log", timeout=20) as answer:
        found: list[dict[str, Any]] = orjson.loads(answer.read())["streams"]
    return found


async def get(port: int, path: str) -> tuple[int, float]:
    """Return an HTTP answer's status and how long the whole of it took, s."""
    start_s = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    data = await reader.read()
    writer.close()
    return int(data.split(b" ", 2)[1]), time.monotonic() - start_s


def _read_ours(folder: Path, true_ms: Mapping[int | None, float]) -> tuple[list[float], list[float]]:
    """Return by how much each TTFT and each gap that ours reported was off, ms."""
    t0_ns = orjson.loads((folder / "summary.json").read_bytes())["clock"]["t0_ns"]
    first_ms: list[float] = []
    gaps_ms: list[float] = []
    for line in (folder / "requests.jsonl").read_bytes().splitlines():
        record = orjson.loads(line)
        if record["outcome"] != "done" or "text" not in record:
            continue
        marks = record["marks_us"]
        emitted = [int(stamp) for stamp in STAMP.findall(record["text"])]
        arrived = list(accumulate([t0_ns + marks["first_token"] * 1000, *(gap * 1000 for gap in record["gaps_us"])]))
        if emitted[0] in true_ms:
            first_ms.append((marks["first_token"] - marks["sent"]) / 1000 - true_ms[emitted[0]])
        gaps_ms += _gap_errors(arrived, emitted)
    return first_ms, gaps_ms


def _gap_errors(arrived: Sequence[int], emitted: Sequence[int]) -> list[float]:
    return [abs((b - a) - (d - c)) / 1e6 for (a, b), (c, d) in zip(pairwise(arrived), pairwise(emitted), strict=True)]


def _ratio(
    id: str, figure: str, ours: float, theirs: Mapping[str, float], unit: str, target: float, beyond: float
) -> Row:
    """Return a row that holds ours against the best of the others."""
    best = min(theirs.values())
    reference = ", ".join(f"{name} {value:.1f} {unit}" for name, value in theirs.items())
    return Row(
        id,
        f"load generator: {figure}",
        f"{ours:.1f} {unit}",
        reference,
        ours / best,
        f"1/{best / ours:.1f}",
        target,
        beyond,
    )
