"""The asyncio edge: one module per wire kind. Imports core and the clock, never Django."""

from collections.abc import Callable

from webapp.backends.base import Answer, Backend
from webapp.backends.openai_http import OpenAIHTTP
from webapp.backends.recording import RecordingPlayer

KINDS: dict[str, Callable[[], Backend]] = {"openai": OpenAIHTTP, "recording": RecordingPlayer}

__all__ = ["KINDS", "Answer", "Backend"]
