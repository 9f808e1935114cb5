"""An ASGI extension of our server: send a piece of a streamed answer without waking the task that streams it.

Waking a task costs as much as the sending. Under servers that lack it everything works as ASGI has it.
"""

from collections.abc import Callable, Mapping
from typing import Any

EXTENSION = "splitsecond.push"

# Sends a later piece of a streamed body at once and returns True; False, and nothing sent, where it would have to wait.
Push = Callable[[bytes], bool]


def of(scope: Mapping[str, Any]) -> Push | None:
    """Return the push of the connection that `scope` describes, None where its server has none."""
    push: Push | None = scope.get("extensions", {}).get(EXTENSION)
    return push
