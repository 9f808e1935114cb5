"""Where a load run from the command line goes: the running demo, else a web app and a simulator of its own."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import orjson
from django.conf import settings

from webapp import queries
from webapp.services import children
from webapp.services.loadplans import Refusal, Where


@contextmanager
def whereabouts(slugs: Sequence[str], wire: str, url: str = "") -> Iterator[Where]:
    """Yield where to send requests, starting what is missing for as long as the block lasts. Raises Refusal."""
    app_url = url.rstrip("/") or children.app_url()
    simulated = any(_is_simulated(slug) for slug in slugs)
    with ExitStack() as stack:
        simulator_url = settings.SIMULATOR_URL
        if wire != "direct" and children.answers(f"{app_url}/healthz"):
            _check_knows(app_url, slugs)
            yield Where(app_url, simulator_url)
            return
        if url:
            raise Refusal(f"Nothing answers at {url}; start the web app there, or leave --url out.")
        if simulated and not children.answers(simulator_url.removesuffix("/v1") + "/healthz"):
            simulator_url = _entered(stack, children.simulator())
        if wire != "direct":
            command = [sys.executable, "manage.py", "serve", "--port", "0"]
            app_url = _entered(stack, children.serving("web app", command, {"SIMULATOR_URL": simulator_url}))
        yield Where(app_url, simulator_url)


def _entered(stack: ExitStack, server: AbstractContextManager[str]) -> str:
    try:
        return stack.enter_context(server)
    except children.NotStarted as error:
        raise Refusal(str(error)) from None


def _is_simulated(slug: str) -> bool:
    row = queries.backend(slug)
    return row is not None and queries.spec_of(row).base_url == settings.SIMULATOR_URL


def _check_knows(app_url: str, slugs: Sequence[str]) -> None:
    """Refuse early where the app that answers is one with other backends."""
    try:
        with urllib.request.urlopen(f"{app_url}/v1/models", timeout=5) as answer:  # noqa: S310 (our own app)
            known = {entry["id"] for entry in orjson.loads(answer.read())["data"]}
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        raise Refusal(f"What answers at {app_url} is not this web app; set PORT, or give --url.") from None
    if missing := [slug for slug in slugs if slug not in known]:
        raise Refusal(f"The web app at {app_url} knows no backend {missing[0]!r}.")
