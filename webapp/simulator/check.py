"""Measure the pace that the simulator keeps on this host: its own process, real sockets, a client that only reads.

The rate is the client's: from the times at which its socket delivered the tokens. Lateness is shown twice, as the
simulator wrote and as the client read, both against the time at which the token was due. Beside them stands the same
load paced by `asyncio.sleep`, without any socket: what a mock server that sleeps between tokens could reach at best.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import orjson

from webapp.simulator.check_profiles import write_profiles
from webapp.simulator.check_reader import PROMPT_TOKENS, READ_S, NotMeasured, Reader, Trace, read
from webapp.simulator.pacing import monotonic_ns
from webapp.simulator.profile import Profile, ProfileError, load_all

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

RATE_TOLERANCE = 0.01
SECONDS = 3.0
SETTLE_NS = 200_000_000  # from when the last stream has begun: connecting is not pacing
WARMING, WAITING = 50, 500
PATIENCE_S = 30.0
SETTLE_S = 2.5  # until the simulator has given back what it read them with
LONG_PROMPT = "word " * 6500  # about 8,000 tokens
CELLS = ((1, 2000), (10, 2000), (50, 2000), (500, 50))  # streams, tokens per second of each


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    streams: int
    tok_s: float
    rate_error: float  # of the mean stream, 0.01 is 1 %
    sent_p50_ms: float  # after it was due
    sent_p99_ms: float
    came_p50_ms: float
    came_p99_ms: float
    gap_p99_ms: float  # of |gap - gap that was due|

    @property
    def met(self) -> bool:
        return abs(self.rate_error) <= RATE_TOLERANCE


def check(folder: Path | None = None) -> int:
    """Measure and print; return 0 where every pace is kept within 1 %, 1 otherwise."""
    try:
        profiles, shipped = load_all(folder), load_all()
    except ProfileError as problem:
        print(problem, file=sys.stderr)
        return 1
    new = {slug: profile for slug, profile in profiles.items() if shipped.get(slug) != profile}
    print(f"{len(profiles)} profiles are in order. Measuring the pace on this host, about half a minute …", flush=True)
    try:
        rows = asyncio.run(_measure())
    except NotMeasured as problem:
        print(problem, file=sys.stderr)
        return 1
    own, unmeasured = asyncio.run(_measure_profiles(folder, new)) if folder and new else ([], [])
    print(table([*rows, *own]))
    try:
        waiting = asyncio.run(waiting_bytes())
    except NotMeasured as problem:
        waiting, unmeasured = None, [*unmeasured, problem]
    memory = "n/a" if waiting is None else f"{waiting / 1000:.1f} kB"
    print(f"A waiting request takes {memory} of memory ({WAITING} of them, 8,000 tokens each).")
    missed = [row for row in [*rows, *own] if not row.name.startswith("asyncio") and not row.met]
    print("Every pace is kept within 1 %." if not missed else f"{len(missed)} not within 1 %: this host is too slow.")
    print(*unmeasured, sep="\n", end="\n" if unmeasured else "", file=sys.stderr)
    return 1 if missed or unmeasured else 0


async def _measure() -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as name, Served(write_profiles(Path(name))) as server:
        for streams, tok_s in CELLS:
            traces = await read(server.port, f"check-{tok_s}", streams, int(tok_s * SECONDS))
            rows.append(row("simulator", traces, tok_s))
            rows.append(row("asyncio.sleep", await _sleep(streams, tok_s), tok_s))
    return rows


async def _measure_profiles(
    folder: Path, profiles: Mapping[str, Profile], most_s: float = READ_S
) -> tuple[list[Row], list[NotMeasured]]:
    """Measure each profile with one stream, against its own due times; return also why some were not."""
    rows, unmeasured = [], []
    with Served(folder) as server:
        for slug, profile in profiles.items():
            try:
                (trace,) = await read(server.port, slug, 1, tokens_to_ask(profile), most_s)
            except NotMeasured as problem:
                unmeasured.append(problem)
                continue
            span_ns = trace.due_ns[-1] - trace.due_ns[0]
            rows.append(row(slug, [trace], (len(trace.due_ns) - 1) / span_ns * 1e9))
    return rows, unmeasured


def tokens_to_ask(profile: Profile) -> int:
    """Return two seconds of a profile's tokens, at least twenty chunks of them, as far as its context has room."""
    wanted = max(20 * profile.chunk_tokens, round(2 * profile.tok_s))
    return min(wanted, profile.context_tokens - PROMPT_TOKENS)


class Served:
    """A simulator in a process of its own."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "webapp.simulator", "--port", "0", "--profiles", str(folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self.port = int(self._process.stdout.readline().rsplit(":", 1)[-1])

    def resident_bytes(self) -> int | None:
        """Return the process's memory; None where there is no /proc."""
        if resource is None:
            return None
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        except OSError:
            return None
        return pages * resource.getpagesize()

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


async def waiting_bytes() -> float | None:
    """Return what a request with a long prompt takes while it waits for its first token; None where unknown.

    Raises NotMeasured where they do not all get there in time.
    """
    with tempfile.TemporaryDirectory() as name, Served(write_profiles(Path(name))) as server:
        opened = await _waiting(server.port, WARMING)  # what the first ones need stays for all
        before = server.resident_bytes()
        opened += await _waiting(server.port, WAITING)
        after = server.resident_bytes()
        for transport, reader in opened:
            reader.done.cancel()
            transport.abort()
    return None if before is None or after is None else (after - before) / WAITING


async def _waiting(port: int, more: int) -> list[tuple[asyncio.Transport, Reader]]:
    """Send so many more requests and come back when all of them wait."""
    loop, there = asyncio.get_running_loop(), await _open_requests(port)
    opened = [
        await loop.create_connection(lambda: Reader("check-wait", 400, LONG_PROMPT), "127.0.0.1", port)
        for _ in range(more)
    ]
    try:
        async with asyncio.timeout(PATIENCE_S):
            while await _open_requests(port) < there + more:  # noqa: ASYNC110 another process has no event to give
                await asyncio.sleep(0.1)
    except TimeoutError:
        why = f"{more} requests did not come to wait within {PATIENCE_S:g} s: this host is too slow."
        raise NotMeasured(why) from None
    await asyncio.sleep(SETTLE_S)
    return opened


async def _open_requests(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: check\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return int(orjson.loads(answer.partition(b"\r\n\r\n")[2])["streams"])


async def _sleep(streams: int, tok_s: float) -> list[Trace]:
    async def stream() -> Trace:
        trace, began_ns = Trace([], [], []), monotonic_ns()
        for place in range(int(tok_s * SECONDS)):
            trace.due_ns.append(began_ns + int(place / tok_s * 1e9))
            trace.came_ns.append(monotonic_ns())
            trace.sent_ns.append(trace.came_ns[-1])
            await asyncio.sleep(1 / tok_s)
        return trace

    return await asyncio.gather(*(stream() for _ in range(streams)))


def steady(traces: Sequence[Trace]) -> list[Trace]:
    """Leave out what came before all the streams were under way; a single stream is so at once."""
    if len(traces) == 1:
        return list(traces)
    from_ns = max(trace.came_ns[0] for trace in traces) + SETTLE_NS
    found = []
    for trace in traces:
        first = next((place for place, came_ns in enumerate(trace.came_ns) if came_ns >= from_ns), 0)
        found.append(Trace(trace.due_ns[first:], trace.sent_ns[first:], trace.came_ns[first:]))
    return found


def row(name: str, traces: Sequence[Trace], tok_s: float) -> Row:
    """Return the figures of some streams that all should run at `tok_s`."""
    traces = steady(traces)
    sent = sorted(at - due for trace in traces for due, at in zip(trace.due_ns, trace.sent_ns, strict=True))
    came = sorted(at - due for trace in traces for due, at in zip(trace.due_ns, trace.came_ns, strict=True))
    gaps = sorted(
        abs((later - earlier) - (due - due_before))
        for trace in traces
        for (due_before, due), (earlier, later) in zip(pairwise(trace.due_ns), pairwise(trace.came_ns), strict=True)
    )
    rates = [(len(trace.came_ns) - 1) / (trace.came_ns[-1] - trace.came_ns[0]) * 1e9 for trace in traces]
    return Row(
        name,
        len(traces),
        tok_s,
        fmean(rates) / tok_s - 1,
        _quantile(sent, 0.5) / 1e6,
        _quantile(sent, 0.99) / 1e6,
        _quantile(came, 0.5) / 1e6,
        _quantile(came, 0.99) / 1e6,
        _quantile(gaps, 0.99) / 1e6,
    )


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as plain text."""
    heads = ("sent p50", "sent p99", "came p50", "came p99", "gap p99")
    lines = [f"{'ms after it was due; paced by':34} {'streams':>7} {'tok/s':>8} {'rate error':>10} " + _cells(heads)]
    lines += [
        f"{one.name:34} {one.streams:>7} {one.tok_s:>8.1f} {one.rate_error:>+10.2%} "
        + _cells(
            f"{value:.3f}"
            for value in (one.sent_p50_ms, one.sent_p99_ms, one.came_p50_ms, one.came_p99_ms, one.gap_p99_ms)
        )
        for one in rows
    ]
    return "\n".join(lines)


def _cells(texts: Iterable[str]) -> str:
    return " ".join(f"{text:>9}" for text in texts)
