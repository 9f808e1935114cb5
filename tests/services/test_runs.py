"""A run over real sockets: which of its answers enter the comparison, and what it is warned of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.upstreams import Upstream
from webapp.core.spec import BackendSpec
from webapp.core.verdict import Verdict
from webapp.services.runs import Ask, Entry, Run, entries_for
from webapp.services.upstreams import upstreams


@pytest.fixture(autouse=True)
async def clients() -> AsyncIterator[None]:
    yield
    await upstreams.close()


async def verdict_between(up: Upstream, *models: str) -> Verdict:
    return await verdict_on_entries(entries_for([(spec(up, model), "") for model in models]))


def spec(up: Upstream, model: str) -> BackendSpec:
    return BackendSpec(model, model, up.url, model, model_family="same")


async def verdict_on_entries(entries: list[Entry]) -> Verdict:
    run = Run(Ask("Hello", system="Be brief.", cold=True), entries, keep=False)
    await run.execute()
    assert run.verdict is not None
    return run.verdict


async def test_thoughts_without_an_answer_beat_nobody_however_soon_they_end(up: Upstream) -> None:
    verdict = await verdict_between(up, "ok-thoughts", "ok")
    assert verdict.winner == "B"
    assert verdict.sentence.endswith("; no other lane finished.")
    assert verdict.warnings[0].detail == "A only thought and gave no answer, and is left out."


async def test_thoughts_before_an_answer_are_part_of_it(up: Upstream) -> None:
    verdict = await verdict_between(up, "ok-reasoning", "ok")
    assert "no other lane" not in verdict.sentence
    assert "no answer" not in [warning.short for warning in verdict.warnings]


async def test_a_lane_that_joined_a_conversation_late_is_warned_of(up: Upstream) -> None:
    history = ({"role": "user", "content": "First"}, {"role": "assistant", "content": "Yes."})
    late = [Entry("a", "A", spec(up, "ok"), history=history), Entry("b", "B", spec(up, "ok"))]
    warnings = {warn.short: warn.detail for warn in (await verdict_on_entries(late)).warnings}
    assert warnings["different histories"].endswith("A after 1 earlier prompt, B after no earlier prompts.")
    even = [replace(entry, history=history) for entry in late]
    assert "different histories" not in [warn.short for warn in (await verdict_on_entries(even)).warnings]
