"""The recordings of real servers are whole, and are served again byte for byte."""

from __future__ import annotations

import pytest

from tests.upstreams import EXPECTED, scripted_upstream
from tests.upstreams.capture import chunks_of
from tests.upstreams.replay import CAPTURES, DATA
from tests.upstreams.test_scripted import ask, close


@pytest.mark.parametrize("file", sorted(CAPTURES))
def test_a_recording_has_the_size_that_its_chunks_add_up_to(file: str):
    assert (DATA / file).stat().st_size == sum(CAPTURES[file]["chunk_bytes"]) > 0


def test_every_recorded_body_is_listed():
    bodies = {path.name for path in DATA.iterdir() if path.suffix in (".sse", ".json")}
    assert bodies - {"captures.json"} == CAPTURES.keys()


async def test_a_recording_is_served_with_its_own_head_and_chunks():
    file = "llamacpp-0c1e570-unicode.sse"
    async with scripted_upstream(gap_s=0) as up:
        reader, writer = await ask(up.url, "real-llamacpp-0c1e570-unicode")
        head, _, body = (await reader.readuntil(b"\r\n0\r\n\r\n")).partition(b"\r\n\r\n")
        await close(writer)
    assert head.decode().split("\r\n") == CAPTURES[file]["head"]
    assert [len(chunk) for chunk in chunks_of(head, body)] == CAPTURES[file]["chunk_bytes"]
    assert b"".join(chunks_of(head, body)) == (DATA / file).read_bytes()


def test_what_a_recording_says_is_known():
    unicode = EXPECTED["real-llamacpp-0c1e570-unicode"]
    assert unicode.text.startswith("Grüße 世界 🏁 👩\u200d🚀 ")
    thinking = EXPECTED["real-llamacpp-0c1e570-reasoning"]
    assert thinking.text
    assert thinking.reasoning
    assert EXPECTED["real-transformers-5.23.0-stream-usage"].output_tokens == 40
