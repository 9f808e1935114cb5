#!/usr/bin/env python
"""Run a management command."""

import itertools
import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036 (this is the check)
    sys.exit("Splitsecond needs Python 3.11 or newer.")

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line


def check_text(arguments: list[str]) -> None:
    """End with a sentence where an argument is no text: what a shell passes on may be any bytes, a request may not."""
    for before, argument in itertools.pairwise(arguments):
        try:
            argument.encode()
        except UnicodeEncodeError:
            own = argument.partition("=")[0] if argument.startswith("-") else before
            sys.exit(f"{own if own.startswith('-') else ascii(argument)} is not valid UTF-8.")


if __name__ == "__main__":
    check_text(sys.argv)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"{error}")
