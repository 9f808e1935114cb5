"""Charts beyond their specification: the library that draws them in the page, and files made without a browser.

Both by vl-convert, in a process of its own: it starts a JavaScript engine, which a serving process has no time for.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import orjson
from django.conf import settings

from webapp.core.charts import Spec

FORMATS = {"svg": "image/svg+xml", "png": "image/png", "pdf": "application/pdf"}
EXPORT_S = 30.0
BUNDLE_S = 120.0

WRITE_BUNDLE = "import sys, vl_convert; sys.stdout.write(vl_convert.javascript_bundle())"
EXPORT = """
import sys, vl_convert
spec, kind = sys.stdin.read(), sys.argv[1]
made = getattr(vl_convert, f"vegalite_to_{kind}")(spec, **({"scale": 2} if kind == "png" else {}))
sys.stdout.buffer.write(made.encode() if isinstance(made, str) else made)
"""


class ChartError(RuntimeError):
    """A chart could not be made; its text is one sentence."""


def bundle_name() -> str:
    """Return the library's path below the static folder; the version is in the name, so that a new one is fetched."""
    return f"vendor/vega-{version('vl-convert-python')}.js"


def ensure_bundle() -> Path:
    """Write the drawing library into the static folder where it is not there yet (some seconds, once) and return it.

    Raises OSError where the folder cannot be written, ChartError where the library cannot be made.
    """
    path = settings.BASE_DIR / "static" / bundle_name()
    if path.is_file():
        return Path(path)
    done = subprocess.run([sys.executable, "-c", WRITE_BUNDLE], capture_output=True, timeout=BUNDLE_S)  # noqa: S603
    if done.returncode:
        raise ChartError(f"The charts' library could not be made: {_last_line(done.stderr)}")
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(done.stdout)
    partial.replace(path)
    return Path(path)


async def export(spec: Spec, kind: str) -> bytes:
    """Return a chart as a file of one of FORMATS. Raises ChartError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", EXPORT, kind,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(EXPORT_S):
            made, said = await process.communicate(orjson.dumps({**spec, "background": "white"}))
    except TimeoutError:
        raise ChartError("The chart took too long to draw.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise ChartError(f"The chart could not be drawn: {_last_line(said)}")
    return made


def _last_line(said: bytes) -> str:
    return said.decode(errors="replace").strip().rpartition("\n")[2][:300]
