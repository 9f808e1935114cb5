"""The help page on load tests: what they can do, and what their figures mean."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from webapp.core.loadplan import CAPS
from webapp.core.loadsummary import DEFINITIONS
from webapp.core.slo import PRESETS

MIXES = {
    "chat": "short questions, 120 tokens out",
    "conversation": "1k in, 211 out on average, spread as in Azure's trace of conversations",
    "code": "2k in, 28 out on average, spread as in Azure's trace of code completion",
    "8k": "prompts of about 8,000 tokens, 200 out",
    "8k-prefix": "the same, with 7,000 tokens that all share",
    "one-token": "one token out: the first token and nothing else",
}


@require_safe
def explain(request: HttpRequest) -> HttpResponse:
    slos = [(name, f"{slo.sentence}, for {slo.target:.0%} of requests") for name, slo in PRESETS.items()]
    caps = {"users": f"{CAPS.users:,}", "rate": f"{CAPS.rate:g}", "minutes": f"{CAPS.duration_s / 60:g}",
            "requests": f"{CAPS.requests:,}"}  # fmt: skip
    context = {"definitions": list(DEFINITIONS.items()), "mixes": list(MIXES.items()), "slos": slos, "caps": caps}
    return render(request, "help/load.html", {"nav": "help", **context})
