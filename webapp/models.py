"""The kept rows: backends, comparisons and turns. Constraints, no behaviour beyond properties; services write them."""

from __future__ import annotations

import secrets
from typing import Any

from django.db import models
from django.db.models import Q

from webapp.core.errors import Outcome


def new_id() -> str:
    """Return an id that cannot be guessed: 128 random bits, safe in a URL."""
    return secrets.token_urlsafe(16)


class Badge(models.TextChoices):
    LIVE = "LIVE", "LIVE"
    SIMULATED = "SIMULATED", "SIMULATED"
    RECORDED = "RECORDED", "RECORDED"


class Backend(models.Model):
    """Something that answers chat requests. An empty `base_url` of a SIMULATED backend means our own simulator.

    The key is a reference (`env:NAME`, `file:PATH`), never the key itself. Prices are US dollars per million tokens.
    """

    slug = models.SlugField(max_length=60, unique=True)
    label = models.CharField(max_length=80)
    kind = models.CharField(max_length=20, default="openai")
    badge = models.CharField(max_length=10, choices=Badge.choices, default=Badge.LIVE)
    base_url = models.CharField(max_length=300, blank=True, default="")
    model = models.CharField(max_length=200)
    model_family = models.CharField(max_length=80, blank=True, default="")
    key_ref = models.CharField(max_length=300, blank=True, default="")
    source = models.TextField(blank=True, default="")
    price_in_usd_per_mtok = models.FloatField(null=True, blank=True)
    price_out_usd_per_mtok = models.FloatField(null=True, blank=True)
    position = models.PositiveIntegerField(default=1000)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["position", "slug"]
        constraints = [
            models.CheckConstraint(
                name="only_simulated_backends_have_no_url",
                condition=~Q(base_url="") | Q(badge="SIMULATED"),
            )
        ]

    def __str__(self) -> str:
        return self.label


class Comparison(models.Model):
    """One prompt or scenario sent to several backends at one instant; also a single turn of the machine wire."""

    id = models.CharField(primary_key=True, max_length=32, default=new_id, editable=False)
    created_at = models.DateTimeField(db_index=True)
    asked_by = models.CharField(max_length=10)  # page, api, cli
    prompt = models.TextField()
    scenario = models.CharField(max_length=40, blank=True, default="")
    order = models.CharField(max_length=10, default="parallel")
    settings: models.JSONField[Any, Any] = models.JSONField(default=dict)
    verdict: models.JSONField[Any, Any] = models.JSONField(default=dict)
    versions: models.JSONField[Any, Any] = models.JSONField(default=dict)
    # Which process runs it: at a start, rows of processes that are gone become "interrupted".
    owner = models.CharField(max_length=120, blank=True, default="")
    done = models.BooleanField(default=False)

    class Meta:
        ordering = ["-created_at"]


class Turn(models.Model):
    """One prompt to one backend and its timed answer, with everything needed to compute every figure again.

    `marks_ns` are ns after the comparison's start; `deltas` are `[ns after the start, kind, text, tokens or null]`.
    The `_us` columns are the same figures in integer µs, for lists and statistics; null is "n/a".
    """

    id = models.CharField(primary_key=True, max_length=32, default=new_id, editable=False)
    comparison = models.ForeignKey(Comparison, on_delete=models.CASCADE, related_name="turns")
    lane = models.PositiveSmallIntegerField()
    step = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField()
    backend_slug = models.CharField(max_length=60, db_index=True)
    label = models.CharField(max_length=80)
    model = models.CharField(max_length=200)
    badge = models.CharField(max_length=10, choices=Badge.choices)
    source = models.TextField(blank=True, default="")
    messages: models.JSONField[Any, Any] = models.JSONField(default=list)
    settings: models.JSONField[Any, Any] = models.JSONField(default=dict)

    outcome = models.CharField(
        max_length=12, choices=[(o.value, o.value) for o in Outcome], default=Outcome.RUNNING.value, db_index=True
    )
    error_kind = models.CharField(max_length=30, blank=True, default="")
    error = models.TextField(blank=True, default="")
    notes: models.JSONField[Any, Any] = models.JSONField(default=list)
    finish_reason = models.CharField(max_length=40, blank=True, default="")
    connection_reused = models.BooleanField(null=True)
    loop_lag_p99_us = models.PositiveIntegerField(null=True)

    marks_ns: models.JSONField[Any, Any] = models.JSONField(default=dict)
    deltas: models.JSONField[Any, Any] = models.JSONField(default=list)
    usage: models.JSONField[Any, Any] = models.JSONField(null=True)
    server_times: models.JSONField[Any, Any] = models.JSONField(default=dict)
    figures: models.JSONField[Any, Any] = models.JSONField(default=dict)
    ttft_us = models.BigIntegerField(null=True)
    e2e_us = models.BigIntegerField(null=True)
    output_tokens = models.PositiveIntegerField(null=True)

    class Meta:
        ordering = ["lane", "step"]
        constraints = [
            models.UniqueConstraint(fields=["comparison", "lane", "step"], name="one_turn_per_lane_and_step")
        ]


class LoadRun(models.Model):
    """Synthetic users against one or more backends: what was planned, and what came of it.

    The raw files (requests.jsonl, live.jsonl, …) lie in `folder`; everything that a page shows is in the row, so that a
    result of a million requests is as light to show as one of a thousand. `exit_code` is null while it runs: 0 pass,
    1 errors, 3 SLO missed, 4 not measurable.
    """

    class State(models.TextChoices):
        RUNNING = "running", "running"
        DONE = "done", "done"
        STOPPED = "stopped", "stopped"
        INTERRUPTED = "interrupted", "interrupted"
        FAILED = "failed", "failed"

    id = models.CharField(primary_key=True, max_length=32, default=new_id, editable=False)
    created_at = models.DateTimeField(db_index=True)
    ended_at = models.DateTimeField(null=True)
    title = models.CharField(max_length=200, blank=True, default="")
    asked_by = models.CharField(max_length=10)  # page, cli
    state = models.CharField(max_length=12, choices=State.choices, default=State.RUNNING, db_index=True)
    wire = models.CharField(max_length=10)
    mode = models.CharField(max_length=10)
    backends: models.JSONField[Any, Any] = models.JSONField(default=list)
    plan: models.JSONField[Any, Any] = models.JSONField(default=dict)
    summary: models.JSONField[Any, Any] = models.JSONField(default=dict)
    charts: models.JSONField[Any, Any] = models.JSONField(default=dict)
    exit_code = models.SmallIntegerField(null=True)
    note = models.TextField(blank=True, default="")
    folder = models.CharField(max_length=500)
    # Who supervises it, and its process group: at a start, runs of processes that are gone are ended and marked.
    owner = models.CharField(max_length=120, blank=True, default="")
    group = models.PositiveIntegerField(null=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.title or ", ".join(self.backends)
