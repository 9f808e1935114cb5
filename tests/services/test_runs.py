"""A run over real sockets: which of its answers enter the comparison."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.upstreams import Upstream
from webapp.core.spec import BackendSpec
from webapp.core.verdict import Verdict
from webapp.services.runs import Ask, Run, entries_for
from webapp.services.upstreams import upstreams


@pytest.fixture(autouse=True)
async def clients() -> AsyncIterator[None]:
    yield
    await upstreams.close()


async def verdict_between(up: Upstream, *models: str) -> Verdict:
    specs = [BackendSpec(model, model, up.url, model, model_family="same") for model in models]
    run = Run(Ask("Hello"), entries_for([(spec, "") for spec in specs]), keep=False)
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
