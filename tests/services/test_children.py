"""Servers that a command starts for itself: they are there for its while, and no longer."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.upstreams import closed_port
from tests.web.conftest import eventually
from webapp.core.spec import BackendSpec
from webapp.services.children import answers, simulator_for

HELD = """
import os, time, django
django.setup()
from webapp.core.spec import BackendSpec
from webapp.services.children import simulator_for
from django.conf import settings
with simulator_for([BackendSpec("a", "A", settings.SIMULATOR_URL, "m")]) as (spec,):
    print(spec.base_url, flush=True)
    time.sleep(60)
"""


def health(base_url: str) -> str:
    return base_url.removesuffix("/v1") + "/healthz"


def test_a_command_without_a_demo_has_a_simulator_of_its_own_for_its_while(settings: Any) -> None:
    with closed_port() as nobody:
        settings.SIMULATOR_URL = nobody
        simulated, live = BackendSpec("a", "A", nobody, "m"), BackendSpec("b", "B", "http://example.invalid/v1", "m")
        with simulator_for([simulated, live]) as (found, other):
            assert other == live
            assert found.base_url != nobody
            assert answers(health(found.base_url))
        assert not answers(health(found.base_url))


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2)")
async def test_a_command_that_is_killed_leaves_no_simulator_behind() -> None:
    with closed_port() as nobody:
        env = {"DJANGO_SETTINGS_MODULE": "webapp.settings", "SIMULATOR_URL": nobody, "PATH": ""}
        command = subprocess.Popen([sys.executable, "-c", HELD], env=env, stdout=subprocess.PIPE, text=True)
        assert command.stdout is not None
        base_url = command.stdout.readline().strip()
        assert answers(health(base_url))
        command.kill()
        command.communicate()
        await eventually(lambda: not answers(health(base_url)), "the simulator ended")
