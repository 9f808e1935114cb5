"""Charts beyond their specification: the library that draws them in the page, and files made without a browser.

Both by vl-convert, in a process of its own: it starts a JavaScript engine, which a serving process has no time for.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import orjson
import vl_convert
from django.conf import settings

from webapp.core.charts import Spec

FORMATS = {"svg": "image/svg+xml", "png": "image/png", "pdf": "application/pdf"}
EXPORT_S = 30.0
BUNDLE_S = 120.0

PNG_SCALE = 2
WRITE_BUNDLE = "import sys, vl_convert; sys.stdout.write(vl_convert.javascript_bundle())"
EXPORT = """
import sys, orjson
from webapp.services.charts import made
sys.stdout.buffer.write(made(orjson.loads(sys.stdin.buffer.read()), sys.argv[1]))
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


def made(spec: Spec, kind: str) -> bytes:
    """Return a chart as a file of one of FORMATS, on white. Starts a JavaScript engine in this process."""
    on_white = {**spec, "background": "white"}
    if kind == "png":
        return bytes(vl_convert.vegalite_to_png(on_white, scale=PNG_SCALE))
    return (
        vl_convert.vegalite_to_svg(on_white).encode() if kind == "svg" else bytes(vl_convert.vegalite_to_pdf(on_white))
    )


def write_all(folder: Path, named: Mapping[str, Spec]) -> Iterator[Path]:
    """Write charts into a folder in all FORMATS, in this process, and yield each path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, spec in named.items():
        for kind in FORMATS:
            path = folder / f"{name}.{kind}"
            path.write_bytes(made(spec, kind))
            yield path


async def export(spec: Spec, kind: str) -> bytes:
    """Return what `made` does, from a process of its own. Raises ChartError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", EXPORT, kind, cwd=settings.BASE_DIR,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(EXPORT_S):
            made, said = await process.communicate(orjson.dumps(spec))
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
