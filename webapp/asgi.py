"""The ASGI application: HTTP to Django, the page's socket to its consumer, start and end to the lifespan."""

import os
from typing import Any

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
http: Any = get_asgi_application()  # sets Django up: what follows may import models

from django.urls import path  # noqa: E402

from webapp.consumers import ArenaConsumer  # noqa: E402
from webapp.lifespan import lifespan  # noqa: E402
from webapp.machine import MachineWire  # noqa: E402
from webapp.origins import OwnOriginOnly  # noqa: E402

routes: Any = URLRouter([path("ws/arena/", ArenaConsumer.as_asgi())])  # type: ignore[list-item, arg-type]
application = ProtocolTypeRouter(
    {
        "http": MachineWire(http),
        "websocket": OwnOriginOnly(routes),
        "lifespan": lifespan,
    }
)
