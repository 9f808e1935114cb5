"""What Locust loads: `locust -f loadtests/locustfile.py -H http://127.0.0.1:8000`, or with parameters in a file.

The environment variable SPLITSECOND_LOAD_FILE names that file (see `webapp.core.loadplan`), SPLITSECOND_LOAD_OUT the
folder for results. Without them Locust's own options, web page and `--processes`, `--master`, `--worker` are in charge.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import orjson
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import WorkerRunner

from loadtests import plain
from loadtests.conductor import install
from loadtests.users import WIRE_CLASSES, ChatSocketUser, CompletionsUser, DirectUser, classes_of
from webapp.core import loadplan

_file = os.environ.get("SPLITSECOND_LOAD_FILE", "")
_plan = loadplan.from_data(orjson.loads(Path(_file).read_bytes())) if _file else None
_out = os.environ.get("SPLITSECOND_LOAD_OUT", "")

if _plan is not None:
    del ChatSocketUser, CompletionsUser, DirectUser
    globals().update(classes_of(_plan))


def add_options(parser: LocustArgumentParser, **_: Any) -> None:
    plain.add_options(parser)


def install_conductor(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    out = _out or (options.out if options else "")
    if _plan is None and isinstance(environment.runner, WorkerRunner):
        # Which of them are to come, its master says: it alone knows what was chosen.
        available: Any = environment.available_user_classes
        environment.user_classes = list(available.values())
    elif _plan is None and options and not options.user_classes:
        environment.user_classes = [WIRE_CLASSES[options.wire]]
    install(environment, _plan, Path(out) if out else None)
    gc.collect()
    gc.freeze()  # what was loaded stays; the collector need not look at it between tokens


hooks: Any = events
hooks.init_command_line_parser.add_listener(add_options)
hooks.init.add_listener(install_conductor)
