"""A reference stream in a process of its own, shared by all load tests: what it says about itself is the truth."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live import ROOT


class Reference:
    """`url` ends in /v1; `report` is what the server has seen."""

    def __init__(self, url: str) -> None:
        self.url = url

    def report(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/log", timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def streams(self, model: str) -> list[dict[str, Any]]:
        return [stream for stream in self.report()["streams"] if stream["model"] == model]


@pytest.fixture(scope="session")
def reference() -> Iterator[Reference]:
    program = [sys.executable, "-m", "tests.upstreams.reference"]
    process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Reference(process.stdout.readline().split()[1])
    finally:
        process.kill()
        process.communicate()
