"""`manage.py simulate`: the simulator alone, the same process as `python -m webapp.simulator`."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from webapp.simulator.__main__ import port
from webapp.simulator.run import DEFAULT_HOST, DEFAULT_PORT, serve


class Command(BaseCommand):
    help = "Run the simulated inference server, OpenAI-compatible, one model name per profile."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (default %(default)s)")
        parser.add_argument("--port", type=port, default=DEFAULT_PORT, help="default %(default)s, 0: any free")

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(serve(options["host"], options["port"]))
