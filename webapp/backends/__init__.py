"""The asyncio edge: one module per wire kind. Imports core and the clock, never Django."""

from webapp.backends.base import Answer, Backend
from webapp.backends.openai_http import OpenAIHTTP

KINDS: dict[str, type[OpenAIHTTP]] = {"openai": OpenAIHTTP}

__all__ = ["KINDS", "Answer", "Backend"]
