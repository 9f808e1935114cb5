"""`manage.py assets`: write the charts' drawing library into the static folder, once at set-up."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp.services.charts import ChartError, ensure_bundle


class Command(BaseCommand):
    help = "Write the charts' drawing library, which comes out of a Python package, where the page loads it from."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            ensure_bundle()
        except (ChartError, OSError) as error:
            raise CommandError(f"{error}") from None
