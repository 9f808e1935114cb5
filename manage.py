#!/usr/bin/env python
"""Run a management command."""

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036 (this is the check)
    sys.exit("Splitsecond needs Python 3.11 or newer.")

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"{error}")
