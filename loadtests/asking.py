"""Asks one question on one wire, counts how it ended, and fires exactly one Locust request event for it."""

from __future__ import annotations

import logging
import os
from typing import Any, Protocol

import gevent  # type: ignore[import-untyped]
from locust.env import Environment

from loadtests.exchange import Exchange, Job
from loadtests.http import Endpoint
from loadtests.registry import Registry
from loadtests.websocket import Page
from webapp.clock import now_ns
from webapp.core.errors import StreamError
from webapp.core.loadplan import Target

log = logging.getLogger(__name__)

REQUEST_TYPES = {"sse": "SSE", "ws": "WS", "direct": "DIRECT"}


class Wire(Protocol):
    """An `Endpoint` or a `Page`."""

    def ask(self, exchange: Exchange) -> None: ...

    def close(self) -> None: ...


class Wires:
    """The connections of one process. Endpoints are shared; a page belongs to one user."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._endpoints: dict[str, Endpoint] = {}

    def wire(self, target: Target) -> Wire:
        """Return a wire to `target` for one user."""
        if self._registry.plan.wire == "ws":
            page = Page(target.url)
            self._registry.pages.add(page)
            return page
        if target.slug not in self._endpoints:
            key = os.environ.get(target.key, "") if target.key else ""
            slow = self._registry.plan.behaviour.read_bytes_per_s
            self._endpoints[target.slug] = Endpoint(target.url, key, slow)
        return self._endpoints[target.slug]


def ask(environment: Environment, registry: Registry, wire: Wire, job: Job) -> Exchange:
    """Ask, wait for the end, count it. Returns the exchange; nothing but a kill leaves."""
    exchange = Exchange(job)
    exchange.marks.intended = job.intended_ns
    registry.started_one(exchange)
    outcome, error = "interrupted", None
    try:
        wire.ask(exchange)
        outcome = "done"
    except StreamError as failed:
        error = failed
        outcome = exchange.verdict if exchange.verdict in ("left", "interrupted") else "failed"
    except gevent.GreenletExit:
        if isinstance(wire, Page):
            wire.close()
        raise
    except Exception as defect:  # ours: counted as a failure, so that it is seen
        log.exception("a defect of the load test")
        error, outcome = StreamError("internal", f"{type(defect).__name__}: {defect}"), "failed"
    finally:
        if exchange.marks.end is None:
            exchange.marks.end = now_ns()
        if outcome != "failed":
            error = None
        _tell_locust(environment, registry, exchange, outcome, error)
    return exchange


def _tell_locust(
    environment: Environment, registry: Registry, exchange: Exchange, outcome: str, error: StreamError | None
) -> None:
    registry.ended_one(exchange, outcome, error)
    marks, target = exchange.marks, exchange.job.target
    # Locust knows success and failure only; users who left and requests that we ended get a name of their own.
    name = target.slug if outcome in ("done", "failed") else f"{target.slug} ({outcome})"
    start_ns = marks.sent or exchange.begun_ns
    ttft_ns = None if marks.first_token is None or marks.sent is None else marks.first_token - marks.sent
    events: Any = environment.events
    events.request.fire(
        request_type=REQUEST_TYPES[registry.plan.wire],
        name=name,
        response_time=((marks.last_token or marks.end or start_ns) - start_ns) / 1e6,
        response_length=exchange.received_bytes,
        exception=error,
        context={"outcome": outcome, "ttft_ns": ttft_ns},
        url=target.url,
        response=None,
    )
