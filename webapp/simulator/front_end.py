"""The front end of a server: the one process that takes requests in and hands tokens out, one after another. Pure.

Where it has no work of its own for a token, nobody waits in it: a request takes its front-end time, and tokens are out
when their step ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from webapp.simulator.sequence import Step

REQUEST_SHARE = 0.5  # of a request's front-end time, in which it is busy; assumed (validation/README.md)


@dataclass(slots=True)
class FrontEnd:
    """Whatever comes while it is busy waits. It is to be told of requests and steps in the order of their times."""

    request_ns: int = 0  # its work for a request
    token_ns: int = 0  # its work for a token
    _free_ns: int = 0

    @classmethod
    def of(cls, api_ms: float, token_us: float) -> "FrontEnd":
        """Return that of a profile, from a request's front-end time and the work for a token; 0: nobody waits in it."""
        return cls(int(api_ms * 1e6 * REQUEST_SHARE), int(token_us * 1e3)) if token_us else cls()

    def take_in(self, at_ns: int) -> int:
        """Return when a request that comes at `at_ns` reaches the engine."""
        self._free_ns = max(self._free_ns, at_ns) + self.request_ns
        return self._free_ns

    def hand_out(self, step: Step) -> Mapping[int, int]:
        """Return, by ask id, when the step's tokens are out. Empty: all when it ends, as there is no work to do."""
        if not self.token_ns:
            return {}
        self._free_ns = max(self._free_ns, step.ends_ns)
        out_ns = {}
        for ask_id, tokens in step.emitted:
            self._free_ns += self.token_ns * tokens
            out_ns[ask_id] = self._free_ns
        return out_ns
