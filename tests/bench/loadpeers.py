"""Other load generators beside ours, as their users start them.

aiperf where BENCH_AIPERF names its program, guidellm where BENCH_GUIDELLM does, both with the tokenizer in the folder
BENCH_TOKENIZER. Nothing installs them: they bring 49 packages and torch along.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import orjson

from tests.bench.processes import LOAD_CORE, RELAY_CORE
from tests.bench.usage import Usage, followed
from tests.bench.world import World

RAMP_S = 3.2  # starts of closed loops, spread over about one answer
STAMP = re.compile(r"@(\d{19}) ")
PROMPT = "Count to sixty, slowly."


@dataclass(frozen=True, slots=True)
class Work:
    """What a generator is to do: so many requests by so many users, or by Poisson arrivals at a rate per second."""

    url: str
    model: str
    tokens: int
    requests: int
    users: int = 0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a generator reported of one answer, and, where it keeps them, the simulator's own stamps of the same one;
    `stamp_ns` is when the reference stream wrote its first token, which stands in the text.
    """

    ttft_ms: float
    tpot_ms: float
    true_ttft_ms: float | None = None
    stamp_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    answers: list[Answer]
    usage: Usage

    def middle(self, figure: str) -> float | None:
        """Return the median of a figure, None where it is not known."""
        found = [value for answer in self.answers if (value := getattr(answer, figure)) is not None]
        return median(found) if found else None


class Peer(Protocol):
    name: str

    async def run(self, world: World, work: Work) -> Report: ...


class Aiperf:
    name = "aiperf"

    def __init__(self, program: str, tokenizer: str) -> None:
        self._program, self._tokenizer = program, tokenizer

    async def run(self, world: World, work: Work) -> Report:
        folder = _folder(world, self.name)
        prompts = _prompts(folder, {"text": PROMPT}, work.requests)
        load = ["--request-rate", f"{work.rate:g}", "--arrival-pattern", "poisson"]
        if work.users:
            load = ["--concurrency", f"{work.users}", "--concurrency-ramp-duration", f"{RAMP_S}"]
        command = [self._program, "profile", "--model", work.model, "--url", work.url, "--endpoint-type", "chat"]
        command += ["--streaming", *load, "--request-count", f"{work.requests}", "--tokenizer", self._tokenizer]
        command += ["--use-server-token-count", "--input-file", str(prompts), "--custom-dataset-type", "single_turn"]
        command += ["--extra-inputs", f"max_tokens:{work.tokens}", "--extra-inputs", "ignore_eos:true"]
        command += ["--ui", "none", "--export-level", "raw", "--artifact-dir", str(folder)]
        usage = await _usage_of(command, folder)
        told = {record["metadata"]["x_request_id"]: record for record in _lines(folder / "profile_export.jsonl")}
        raw = {record["metadata"]["x_request_id"]: record for record in _lines(folder / "profile_export_raw.jsonl")}
        return Report([self._answer(told[id]["metrics"], raw[id]) for id in told if id in raw], usage)

    def _answer(self, metrics: dict[str, Any], raw: dict[str, Any]) -> Answer:
        events = [packet["value"] for response in raw["responses"] for packet in response["packets"]]
        stamps = [orjson.loads(event).get("sim", {}) for event in events if event.startswith("{")]
        arrived_ns = next((stamp["arrived_ns"] for stamp in stamps if "arrived_ns" in stamp), None)
        sent_ns = next((stamp["sent_ns"] for stamp in stamps if "sent_ns" in stamp), None)
        true_ms = None if arrived_ns is None or sent_ns is None else (sent_ns - arrived_ns) / 1e6
        ttft, tpot = (metrics[name]["value"] for name in ("time_to_first_token", "inter_token_latency"))
        return Answer(ttft, tpot, true_ms, first_stamp(" ".join(events)))


class Guidellm:
    name = "guidellm"

    def __init__(self, program: str, tokenizer: str) -> None:
        self._program, self._tokenizer = program, tokenizer

    async def run(self, world: World, work: Work) -> Report:
        folder = _folder(world, self.name)
        prompts = _prompts(folder, {"prompt": PROMPT, "output_tokens_count": work.tokens}, work.requests)
        load = f"kind=concurrent,streams={work.users},rampup_duration={RAMP_S}" if work.users else (
            f"kind=poisson,rate={work.rate:g}")  # fmt: skip
        backend = f"kind=openai_http,target={work.url},model={work.model},validate_backend=false"
        command = [self._program, "run", "--backend", backend, "--profile", load]
        command += ["--constraint", f"kind=max_requests,count={work.requests}"]
        command += ["--tokenizer", f"kind=huggingface_auto,model={self._tokenizer}"]
        command += ["--data", f"kind=json_file,path={prompts}", "--disable-console-interactive"]
        command += ["--output", f"kind=json,path={folder / 'out.json'}"]
        usage = await _usage_of(command, folder, HF_HUB_OFFLINE="1")
        (benchmark,) = orjson.loads((folder / "out.json").read_bytes())["benchmarks"]
        # What it calls inter-token latency is TPOT; what it calls time per output token has the first token in it.
        found = [
            Answer(
                answer["time_to_first_token_ms"],
                answer["inter_token_latency_ms"],
                stamp_ns=first_stamp(answer["output"]),
            )
            for answer in benchmark["requests"]["successful"]
        ]
        return Report(found, usage)


def first_stamp(text: str) -> int | None:
    """Return when the first token of the reference stream in `text` was written, monotonic ns."""
    found = STAMP.search(text)
    return int(found[1]) if found else None


def peers() -> list[Peer]:
    """Return those that the environment names."""
    tokenizer = os.environ.get("BENCH_TOKENIZER", "")
    known = (("BENCH_AIPERF", Aiperf), ("BENCH_GUIDELLM", Guidellm))
    programs = ((os.environ.get(variable, ""), kind) for variable, kind in known)
    return [kind(program, tokenizer) for program, kind in programs if program and tokenizer]


async def _usage_of(command: Sequence[str], folder: Path, **environment: str) -> Usage:
    """Run a command to its end and return the CPU time of all its processes. Raises RuntimeError."""
    with open(folder / "output.log", "wb") as log:
        env = {**os.environ, **environment}
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=env, stdout=log, stderr=log)
        os.sched_setaffinity(process.pid, {LOAD_CORE, RELAY_CORE})  # several processes; ours has one core
        usage = await followed(process)
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed: {(folder / 'output.log').read_text()[-1000:]}")
    return usage


def _folder(world: World, name: str) -> Path:
    folder = world.directory / f"{name}-{len(list(world.directory.glob(f'{name}-*')))}"
    folder.mkdir()
    return folder


def _prompts(folder: Path, line: dict[str, Any], count: int) -> Path:
    path = folder / "prompts.jsonl"
    path.write_bytes((orjson.dumps(line) + b"\n") * count)  # guidellm ends with its data
    return path


def _lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]
