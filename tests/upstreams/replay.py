"""The recorded answers of real servers (tests/data), served again as scenarios `real-NAME`, chunk by chunk."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from tests.upstreams.exchange import Exchange
from tests.upstreams.good import Scenario

DATA = Path(__file__).parent.parent / "data"
CAPTURES: dict[str, dict[str, Any]] = json.loads((DATA / "captures.json").read_text("utf-8"))


async def replay(x: Exchange, file: str) -> None:
    """Send the recorded head and chunks, `gap_s` apart; end as the recording ended."""
    capture = CAPTURES[file]
    body = (DATA / file).read_bytes()
    await x.raw("\r\n".join([*capture["head"], "", ""]).encode())
    x.chunked = any(line.lower() == "transfer-encoding: chunked" for line in capture["head"])
    for size in capture["chunk_bytes"]:
        await x.send(body[:size], content(body[:size]))
        body = body[size:]
        await x.pause()
    if x.chunked:
        await x.end()


def content(body: bytes, field: str = "content") -> str:
    """Return the text of choice 0 in whole events, read naively: these servers send LF and one data line per event."""
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: {")]
    choices = [choice for line in lines for choice in json.loads(line).get("choices", ())]
    return "".join(choice["delta"].get(field) or "" for choice in choices if choice["index"] == 0)


def output_tokens(body: bytes) -> int | None:
    usages = [json.loads(line[6:]).get("usage") for line in body.split(b"\n") if line.startswith(b"data: {")]
    return next((usage["completion_tokens"] for usage in reversed(usages) if usage), None)


REPLAYS: dict[str, Scenario] = {f"real-{Path(file).stem}": partial(replay, file=file) for file in CAPTURES}
