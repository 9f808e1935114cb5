"""`manage.py serve`: the web app on our server, until Ctrl-C or SIGTERM."""

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from channels.routing import get_default_application
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from webapp.lifespan import start
from webapp.server import CannotListen, serve


class Command(BaseCommand):
    help = "Serve the web app. Ctrl-C or SIGTERM ends it cleanly; a second one at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="address to listen on (HOST, %(default)s)")
        parser.add_argument(
            "--port", default=settings.PORT, type=port_number, help="port to listen on, 0: any free (PORT, %(default)s)"
        )

    def handle(self, *args: Any, host: str, port: int, **options: Any) -> None:
        application = get_default_application()
        try:
            start()
        except DatabaseError as error:
            raise CommandError(f"The database is not ready ({error}); run `python manage.py migrate`.") from error
        try:
            serve(application, host, port, ready=self.announce)
        except CannotListen as error:
            raise CommandError(str(error)) from error

    def announce(self, host: str, port: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        self.stdout.write(f"Serving on http://{shown}:{port}/")
        self.stdout.flush()


def port_number(text: str) -> int:
    """Return the port; raise ArgumentTypeError for what is none."""
    if not text.isdecimal() or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port; use a number from 0 (any free one) to 65535")
    return int(text)
