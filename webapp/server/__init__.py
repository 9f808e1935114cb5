"""Our daphne: the stock server plus what it lacks under slow readers, hostile input and a stop signal.

Back-pressure on every stream, a limit on readers that take nothing, limits on what comes in before it is stored
anywhere, and a clean end. No Django here: it serves any ASGI application.
"""

import daphne.server  # noqa: F401  (installs the asyncio reactor; must come before any other import of Twisted)

from webapp.server.limits import ServerLimits, StopTimes
from webapp.server.run import CannotListen, Server, serve

__all__ = ["CannotListen", "Server", "ServerLimits", "StopTimes", "serve"]
