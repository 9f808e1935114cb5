"""OpenAI-compatible chat endpoints over HTTP: the prompt out, raw bytes of the event stream in.

aiohttp, because its pool survives requests that are cancelled again and again, as stopped lanes are; httpx 0.28 loses
connections to them. Nothing is decoded, decompressed or split here: what the socket delivers is what the lane stamps.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

from webapp.backends import faults, keys
from webapp.backends.base import Answer
from webapp.clock import now_ns
from webapp.core import openai
from webapp.core.errors import StreamError
from webapp.core.spec import BackendSpec, PromptSpec
from webapp.core.timing import Marks

# Shorter than the keep-alive of common servers (uvicorn closes after 5 s): a request must not meet a closing socket.
KEEP_ALIVE_S = 4.0
ERROR_BODY_BYTES = 64 * 1024
# A well-behaved server ends its response right after [DONE]; then the connection can serve the next request.
DRAIN_S = 0.1


@dataclass(slots=True)
class _Progress:
    """What the hooks note of one request: its marks, and whether its host's name is being looked up just now."""

    marks: Marks
    resolving: bool = False


class OpenAIHTTP:
    """The client shared by all requests of a process. Made inside a running loop; `close` it at the end."""

    def __init__(self, tls: ssl.SSLContext | bool = True, resolver: AbstractResolver | None = None) -> None:
        pooled = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=tls, resolver=resolver)
        self._session = _session(pooled)
        # Servers that failed inside the warm-up may close that connection next, unannounced (transformers serve 5.23
        # does). The measured request must not be the one to find out: these hosts get a new connection each time.
        self._fresh = _session(aiohttp.TCPConnector(limit=0, force_close=True, ssl=tls, resolver=resolver))
        self._closing: set[str] = set()

    @asynccontextmanager
    async def open(self, spec: BackendSpec, prompt: PromptSpec, marks: Marks) -> AsyncIterator[Answer]:
        url = chat_url(spec.base_url)
        host = _host(spec.base_url)
        key = keys.resolve(spec.key_ref)
        connect_s = spec.limits.connect_s
        progress = _Progress(marks)
        response = None
        try:
            session = self._fresh if host in self._closing else self._session
            response = await session.post(
                url,
                data=openai.request_body(spec.model, prompt),
                headers=_headers(key),
                allow_redirects=False,
                # One limit on name, TCP and TLS together, and one on each address where a name has several.
                timeout=aiohttp.ClientTimeout(total=None, connect=connect_s, sock_connect=connect_s),
                trace_request_ctx=progress,
            )
            marks.headers = now_ns()
            await _check_head(response, url, key)
            yield Answer(
                reads=response.content.iter_any(),
                reused=marks.connect is None,
                simulated="X-Simulated" in response.headers,
            )
            await _drain(response)
        except (aiohttp.ClientError, OSError) as error:  # from here, or thrown in from a read inside the block
            raise faults.of_exception(error, host, resolving=progress.resolving) from error
        finally:
            if response is not None:
                response.close()

    async def warm(self, spec: BackendSpec, timeout_s: float) -> None:
        with suppress(aiohttp.ClientError, OSError, TimeoutError, StreamError):
            async with self._session.get(
                spec.base_url.rstrip("/") + "/models",
                headers=_headers(keys.resolve(spec.key_ref)),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                # To its end, or the connection cannot be used again.
                await _read_up_to(response, ERROR_BODY_BYTES, bytearray())
                if response.status >= 500:
                    self._closing.add(_host(spec.base_url))

    async def close(self) -> None:
        await self._session.close()
        await self._fresh.close()


def chat_url(base_url: str) -> str:
    """Return the chat endpoint below an API's base URL (`…/v1`)."""
    return base_url.rstrip("/") + "/chat/completions"


async def _check_head(response: aiohttp.ClientResponse, url: str, key: str) -> None:
    """Raise StreamError unless the answer is a plain event stream. Error bodies are quoted without our key."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    if response.status != 200:
        body = await _error_body(response, key)
        raise faults.of_status(response.status, headers, body, url.partition("?")[0], keyed=bool(key))
    if (encoded := openai.unasked_encoding(headers.get("content-encoding", ""))) is not None:
        raise encoded
    if response.content_type != "text/event-stream":
        raise faults.not_a_stream(headers.get("content-type", ""), await _error_body(response, key))


async def _error_body(response: aiohttp.ClientResponse, key: str) -> bytes:
    body = bytearray()
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(2):
            await _read_up_to(response, ERROR_BODY_BYTES, body)
    return bytes(body).replace(key.encode(), b"(key)") if key else bytes(body)


async def _read_up_to(response: aiohttp.ClientResponse, most: int, body: bytearray) -> None:
    """Read into `body` until the response ends or `most` bytes have come."""
    while len(body) < most and (data := await response.content.readany()):
        body += data


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Let a finished response end, so that its connection is used again; anything but an end closes it."""
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            if not await response.content.readany():
                await response.release()


def _headers(key: str) -> dict[str, str]:
    headers = {
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": "splitsecond",
    }
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return headers


def _host(base_url: str) -> str:
    return base_url.partition("://")[2].partition("/")[0] or base_url


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        trace_configs=[_tracing()],
    )


def _tracing() -> aiohttp.TraceConfig:
    """Return the hooks that mark connection set-up and the moment a request is handed to its open connection."""
    config = aiohttp.TraceConfig()

    async def connecting(_: Any, context: SimpleNamespace, __: Any) -> None:
        if (progress := context.trace_request_ctx) is not None:
            progress.marks.connect = now_ns()

    async def resolving(_: Any, context: SimpleNamespace, __: Any) -> None:
        if (progress := context.trace_request_ctx) is not None:
            progress.resolving = True

    async def resolved(_: Any, context: SimpleNamespace, __: Any) -> None:
        if (progress := context.trace_request_ctx) is not None:
            progress.resolving = False

    async def connected(_: Any, context: SimpleNamespace, __: Any) -> None:
        if (progress := context.trace_request_ctx) is not None:
            progress.marks.connected = now_ns()

    async def sent(_: Any, context: SimpleNamespace, __: Any) -> None:
        # Called just before head and body go to the transport in one write.
        if (progress := context.trace_request_ctx) is not None:
            progress.marks.sent = now_ns()

    config.on_connection_create_start.append(connecting)
    config.on_dns_resolvehost_start.append(resolving)
    config.on_dns_resolvehost_end.append(resolved)
    config.on_connection_create_end.append(connected)
    config.on_request_chunk_sent.append(sent)
    return config
