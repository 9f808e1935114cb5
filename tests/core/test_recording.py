"""Recordings: what was measured is what is sent again."""

from __future__ import annotations

import pytest

from webapp.core.meter import StreamMeter
from webapp.core.recording import Recording, from_json

ANSWER = Recording(
    model="tiny",
    headers_ns=1_000,
    pieces=((5_000, "reasoning", "Hm. "), (9_000, "content", "Yes,\n"), (9_000, "content", "no\u2028.")),
    prompt_tokens=3,
    completion_tokens=4,
    finish_reason="length",
)


def test_a_recording_survives_its_file() -> None:
    assert from_json(ANSWER.to_json()) == ANSWER


def test_a_played_recording_measures_as_the_answer_it_was() -> None:
    meter = StreamMeter()
    for due_ns, data in ANSWER.schedule():
        meter.receive(data, due_ns)
    assert meter.finish(9_000) == []
    assert [(d.at_ns, d.kind, d.text) for d in meter.deltas] == list(ANSWER.pieces)
    assert meter.usage is not None
    assert (meter.usage.prompt_tokens, meter.usage.completion_tokens) == (3, 4)
    assert meter.finish_reason == "length"


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"splitsecond_recording": 1}', b'{"splitsecond_recording": 1, "model": "m", "headers_ns": 0,'
     b' "pieces": [[9, "content", "a"], [1, "content", "b"]]}'],
)  # fmt: skip
def test_what_is_no_recording_is_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(ValueError, match="recording"):
        from_json(data)
