"""`manage.py simulate`: the simulator alone, the same process as `python -m webapp.simulator`."""

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from django.core.management.base import BaseCommand

from webapp.simulator.run import add_arguments, run


class Command(BaseCommand):
    help = "Run the simulated inference server, OpenAI-compatible, one model name per profile."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(run(Namespace(**options)))
