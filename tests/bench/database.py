"""Makes the benchmark's database in VAR_DIR: the tables, and one backend for each plan of the reference stream.

    VAR_DIR=… python -m tests.bench.database REFERENCE_PORT

A page names a backend, and the backend's model names the plan. The machine wire passes a request's own fields on, so
that the one backend `ref` is enough there.
"""

from __future__ import annotations

import os
import sys

import django
from django.core.management import call_command

# Slug: the model that the reference stream is asked for.
PLANS = {
    "ref": "ref",
    "fast": "ref-2000x30000",
    "faster": "ref-3000x30000",
    "slow": "ref-50x3000",
    "idle": "ref-1x3000",
    "stalled": "ref-50x10+600000ms",
    "unlimited": "ref-maxx2000000",
}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
    django.setup()
    call_command("migrate", verbosity=0)
    from webapp.models import Backend  # noqa: PLC0415 (models exist only after set-up)

    url = f"http://127.0.0.1:{int(sys.argv[1])}/v1"
    rows = [Backend(slug=slug, label=slug, model=model, base_url=url) for slug, model in PLANS.items()]
    Backend.objects.bulk_create(rows)


if __name__ == "__main__":
    main()
