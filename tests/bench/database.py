"""Makes the tables of the database in VAR_DIR where they are not there yet, and adds backends of one reference stream.

VAR_DIR=… python -m tests.bench.database PORT SLUG=MODEL …
"""

from __future__ import annotations

import os
import sys

import django
from django.core.management import call_command


def main(port: str, *backends: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
    django.setup()
    call_command("migrate", verbosity=0)
    from webapp.models import Backend  # noqa: PLC0415 (models exist only after set-up)

    pairs = [backend.split("=", 1) for backend in backends]
    url = f"http://127.0.0.1:{int(port)}/v1"
    Backend.objects.bulk_create(Backend(slug=slug, label=slug, model=model, base_url=url) for slug, model in pairs)


if __name__ == "__main__":
    main(*sys.argv[1:])
