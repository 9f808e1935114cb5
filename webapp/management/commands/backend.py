"""`manage.py backend add|list|test|remove`: backends from a script."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from webapp import queries
from webapp.management.interrupts import Interrupts
from webapp.management.readiness import prepare_database
from webapp.models import Backend
from webapp.services import backends
from webapp.services.upstreams import upstreams

OPTIONS = {
    "slug": "SLUG",
    "base_url": "--url",
    "model": "--model",
    "kind": "--kind",
    "key_ref": "--key",
    "label": "--label",
}


class Command(BaseCommand):
    help = "Add, list, test and remove backends."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="add|list|test|remove")
        add = verbs.add_parser("add", help="add a backend, or change the one with this name")
        add.add_argument("slug", help="short name: letters, digits, dashes")
        add.add_argument("--url", required=True, help="base URL of the API, such as http://127.0.0.1:8080/v1")
        add.add_argument("--model", required=True, help="the model's name as the server knows it")
        add.add_argument(
            "--kind", default="openai", choices=backends.EDITABLE_KINDS, help="wire kind (default %(default)s)"
        )
        add.add_argument("--key", default="", metavar="env:NAME|file:PATH", help="where the key is, never the key")
        add.add_argument("--label", default="", help="what the audience sees (default: the slug)")
        listing = verbs.add_parser("list", help="list all backends")
        listing.add_argument("--json", action="store_true", help="as JSON")
        test = verbs.add_parser("test", help="send one real request and report what was found")
        test.add_argument("slug")
        test.add_argument("--json", action="store_true", help="as JSON")
        remove = verbs.add_parser("remove", help="remove a backend; its runs stay")
        remove.add_argument("slug")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        prepare_database()
        getattr(self, f"_{verb}")(options)

    def _add(self, options: dict[str, Any]) -> None:
        known = queries.backend(options["slug"])
        backend = known or Backend(slug=options["slug"])
        if known is not None and known.badge == "SIMULATED" and not known.base_url:
            raise CommandError(f"{known.slug} is a profile of the built-in simulator; choose another name.")
        backend.label = options["label"] or backend.label or options["slug"]
        backend.kind, backend.model = options["kind"], options["model"]
        backend.base_url, backend.key_ref = options["url"], options["key"]
        try:
            backends.save(backend)
        except ValidationError as error:
            raise CommandError(" ".join(_sentences(error))) from None
        self.stdout.write(f"{backend.slug} {'changed' if known else 'added'}.")

    def _list(self, options: dict[str, Any]) -> None:
        rows = [_described(backend) for backend in queries.all_backends()]
        if options["json"]:
            self.stdout.write(json.dumps(rows, indent=2))
            return
        for row in rows:
            self.stdout.write(f"{row['slug']:28} {row['badge']:10} {row['label']:34} {row['url']}")
        if not rows:
            self.stdout.write("No backends yet; see: manage.py backend add --help")

    def _test(self, options: dict[str, Any]) -> None:
        with Interrupts() as interrupts:
            probe = interrupts.run(_probe(_known(options["slug"])))
        if options["json"]:
            self.stdout.write(json.dumps(probe.as_dict(), indent=2))
        else:
            self.stdout.write(probe.summary)
            for check in probe.checks:
                self.stdout.write(f"  {check.label + ':':22} {check.text}")
        if not probe.ok:
            raise CommandError(probe.summary)

    def _remove(self, options: dict[str, Any]) -> None:
        backends.remove(_known(options["slug"]).slug)
        self.stdout.write(f"{options['slug']} removed.")


async def _probe(backend: Backend) -> backends.Probe:
    try:
        return await backends.probe(queries.spec_of(backend))
    finally:
        await upstreams.close()


def _sentences(error: ValidationError) -> list[str]:
    """Return what is wrong, each with the option that it is about."""
    if not hasattr(error, "error_dict"):
        return error.messages
    found = error.message_dict.items()
    return [f"{OPTIONS.get(field, field)}: {message}" for field, messages in found for message in messages]


def _known(slug: str) -> Backend:
    backend = queries.backend(slug)
    if backend is None:
        raise CommandError(f"There is no backend {slug!r}; see: manage.py backend list")
    return backend


def _described(backend: Backend) -> dict[str, Any]:
    return {
        "slug": backend.slug,
        "label": backend.label,
        "badge": backend.badge,
        "kind": backend.kind,
        "url": queries.spec_of(backend).base_url,
        "model": backend.model,
        "model_family": backend.model_family,
        "key": backend.key_ref,
        "source": backend.source,
    }
