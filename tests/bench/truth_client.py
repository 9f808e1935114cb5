"""The client that `tests.bench.truth` starts: N turns at once on the product's measuring path, one JSON line of errors.

A process of its own, so that nothing else shares its event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
from itertools import pairwise

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
django.setup()

from webapp.core.spec import BackendSpec, PromptSpec  # noqa: E402
from webapp.services.turns import LiveTurn, run_turn  # noqa: E402
from webapp.services.upstreams import upstreams  # noqa: E402

RATE, TOKENS, START_MS = 50, 50, 40
SAMPLES = 10
STAMP = re.compile(r"@(\d{19}) ")


async def measure(port: int, streams: int) -> dict[str, list[float]]:
    """Return, in µs, by how much each first token was stamped late and each gap was reported wrong."""
    model = f"ref-{RATE}x{TOKENS}+{START_MS}ms~"
    spec = BackendSpec("ref", "reference", f"http://127.0.0.1:{port}/v1", model)
    turns: list[LiveTurn] = []

    async def one(place: int) -> None:
        await asyncio.sleep(place / streams)  # people do not press Enter in the same millisecond
        for _ in range(max(1, SAMPLES // streams)):
            turn = LiveTurn(spec, PromptSpec(({"role": "user", "content": "?"},)))
            await run_turn(turn, upstreams.client(spec))
            turns.append(turn)

    await one(0)  # the first answer of a process pays for code that has not run yet; the web app's was long ago
    turns.clear()
    await asyncio.gather(*(one(place) for place in range(streams)))
    await upstreams.close()
    late, wrong = [], []
    for turn in turns:
        read = [delta.at_ns for delta in turn.meter.deltas]
        true = [int(STAMP.match(delta.text)[1]) for delta in turn.meter.deltas]
        late.append((read[0] - true[0]) / 1000)
        wrong += [abs((b - a) - (d - c)) / 1000 for (a, b), (c, d) in zip(pairwise(read), pairwise(true), strict=True)]
    return {"ttft_late_us": late, "gap_error_us": wrong}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--upstream", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    args = parser.parse_args()
    print(json.dumps(asyncio.run(measure(args.upstream, args.streams))))


if __name__ == "__main__":
    main()
