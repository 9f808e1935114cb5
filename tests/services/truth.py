"""What the reference stream says of itself: each token's text is the time at which it was written."""

from __future__ import annotations

import re

from webapp.services.turns import LiveTurn

STAMP = re.compile(r"@(\d{19}) ")


def written_ns(turn: LiveTurn) -> list[int]:
    """Return when each token of an answer was written, on our own clock: on Linux both processes have the same."""
    return [int(stamp) for stamp in STAMP.findall(turn.text)]


def lateness_ns(turn: LiveTurn) -> list[int]:
    """Return how long after its writing each token was stamped."""
    return [delta.at_ns - ns for delta, ns in zip(turn.meter.deltas, written_ns(turn), strict=True)]
