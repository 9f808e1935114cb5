"""`python -m tests.bench`: chooses the figures, runs them, prints the table."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson

from tests.bench import agreement, clone, load, memory, page, peer, pressure, simulated, speed, truth
from tests.bench.processes import LOAD_CORE
from tests.bench.table import Row, machine, missing, text_table
from tests.bench.world import World, world
from webapp.services import speed as speed_page

Figure = Callable[[World], Awaitable[list[Row]]]

# Where the system lets us: what else runs on the machine is then measured less. All processes here inherit it alike.
PRIORITY = -10

FIGURES: dict[str, Figure] = {
    "P1": speed.p1,
    "P2": peer.p2,
    "P3": speed.p3,
    "P4": pressure.p4,
    "P5": pressure.p5,
    "P6": speed.p6,
    "P7": memory.p7,
    "P8": page.p8,
    "P9": simulated.p9,
    "P10": load.p10,
    "P12": load.p12,
    "P13": simulated.p13,
    "P14": clone.p14,
    "P15": load.p15,
    "A": agreement.agreement,
    "G1": speed.growth,
    "L": pressure.lanes,
    "T": truth.truth,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure ours beside references.")
    parser.add_argument("--only", default="", help=f"comma-separated, of {', '.join(FIGURES)}")
    parser.add_argument("--quick", action="store_true", help="one repetition and shorter windows: for a first look")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--keep", action="store_true", help="show these rows on the app's help page")
    args = parser.parse_args()
    wanted = [name.strip().upper() for name in args.only.split(",") if name.strip()] or list(FIGURES)
    if unknown := [name for name in wanted if name not in FIGURES]:
        parser.error(f"there is no figure {unknown[0]}; there are {', '.join(FIGURES)}")
    about = machine()
    os.sched_setaffinity(0, {LOAD_CORE})
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    gc.disable()  # a collection between two tokens would be read as a relay's delay
    with world(args.quick) as ready:
        rows = asyncio.run(measure(ready, wanted))
    print(text_table(rows))
    if args.json:
        report = {"machine": about, "rows": [row.as_dict() for row in rows]}
        args.json.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    if args.keep:
        speed_page.keep([row.shown(about, time.strftime("%Y-%m-%d")) for row in rows if row.value is not None])
    return 1 if any(row.met == "NO" for row in rows) else 0


async def measure(ready: World, wanted: list[str]) -> list[Row]:
    """Take the figures one after the other; one that cannot be taken says so and leaves the others alone."""
    rows: list[Row] = []
    for name in wanted:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        try:
            rows += await FIGURES[name](ready)
        except Exception as error:
            traceback.print_exc()
            rows.append(missing(name, "could not be measured", f"{type(error).__name__}: {error}"))
        gc.collect()
    return rows


if __name__ == "__main__":
    sys.exit(main())
