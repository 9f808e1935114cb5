"""`manage.py seed`: one backend for each profile of the simulator. Your own backends stay as they are."""

from typing import Any

from django.core.management.base import BaseCommand

from webapp.management.readiness import prepare_database
from webapp.services.scenarios import scenarios


class Command(BaseCommand):
    help = "Make or refresh the simulated backends and check the scenarios."

    def handle(self, *args: Any, **options: Any) -> None:
        new = prepare_database(refresh=True)
        self.stdout.write(f"{new} new simulated backend(s), {len(scenarios())} scenario(s).")
