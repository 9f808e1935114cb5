"""`manage.py serve`: the web app on our server, until Ctrl-C or SIGTERM."""

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from channels.routing import get_default_application
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from webapp.lifespan import start
from webapp.server import CannotListen, serve


class Command(BaseCommand):
    help = "Serve the web app. Ctrl-C or SIGTERM ends it cleanly; a second one at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        host, port = getattr(settings, "HOST", "127.0.0.1"), int(getattr(settings, "PORT", 8000))
        parser.add_argument("--host", default=host, help=f"address to listen on (HOST; now {host})")
        parser.add_argument("--port", default=port, type=port_number, help=f"port to listen on (PORT; now {port})")

    def handle(self, *args: Any, host: str, port: int, **options: Any) -> None:
        application = get_default_application()
        start()
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
