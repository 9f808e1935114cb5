"""Every read that a page or a command needs. Writes nothing; a constant number of queries each."""

from __future__ import annotations

from django.conf import settings
from django.db.models import Prefetch, QuerySet

from webapp.core.spec import BackendSpec
from webapp.models import Backend, Comparison, Turn


def spec_of(backend: Backend) -> BackendSpec:
    """Return the backend as the network sees it; a SIMULATED one without a URL is our own simulator."""
    return BackendSpec(
        slug=backend.slug,
        label=backend.label,
        base_url=backend.base_url or settings.SIMULATOR_URL,
        model=backend.model,
        kind=backend.kind,
        badge=backend.badge,
        key_ref=backend.key_ref,
        model_family=backend.model_family,
        price_in_usd_per_mtok=backend.price_in_usd_per_mtok,
        price_out_usd_per_mtok=backend.price_out_usd_per_mtok,
    )


def all_backends() -> list[Backend]:
    return list(Backend.objects.all())


def backend(slug: str) -> Backend | None:
    return Backend.objects.filter(slug=slug).first()


def recent_comparisons() -> QuerySet[Comparison]:
    """Newest first, with their turns but without the turns' long columns."""
    light = Turn.objects.defer("deltas", "messages", "server_times", "marks_ns")
    return Comparison.objects.prefetch_related(Prefetch("turns", queryset=light))


def comparison(comparison_id: str) -> Comparison | None:
    return Comparison.objects.prefetch_related("turns").filter(id=comparison_id).first()


def question(comparison_id: str) -> Comparison | None:
    """Return a run and its turns as they were asked, without what was answered."""
    asked = Turn.objects.defer("deltas", "server_times", "marks_ns")
    return Comparison.objects.prefetch_related(Prefetch("turns", queryset=asked)).filter(id=comparison_id).first()


def turn(turn_id: str) -> Turn | None:
    return Turn.objects.select_related("comparison").filter(id=turn_id).first()
