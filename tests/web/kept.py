"""Runs made in the test's own process and kept in its rows, for pages that show what was kept."""

from __future__ import annotations

import asyncio
from typing import Any

from django.test import Client

from tests.upstreams import scripted_upstream
from webapp.core.spec import BackendSpec
from webapp.models import Comparison
from webapp.services.runs import Ask, Run, entries_for
from webapp.services.upstreams import upstreams
from webapp.services.writer import writer


def kept_run(*models: str, prompt: str = "Hello", **ask: Any) -> tuple[Run, Comparison]:
    """Run a comparison of these scenarios of the scripted server; return it and what was stored."""
    run = asyncio.run(_run(models, Ask(prompt=prompt, **ask)))
    assert writer.flush(60)
    return run, Comparison.objects.prefetch_related("turns").get(id=run.id)


def shown(path: str) -> str:
    """Return the page at this address, which has to be there."""
    reply = Client().get(path)
    assert reply.status_code == 200
    return reply.content.decode()


async def _run(models: tuple[str, ...], ask: Ask) -> Run:
    async with scripted_upstream(gap_s=0.001) as up:
        specs = [BackendSpec(model, f"Label of {model}", up.url, model) for model in models]
        run = Run(ask, entries_for([(spec, "a source") for spec in specs]))
        try:
            await run.execute()
        finally:
            await upstreams.close()
        return run
