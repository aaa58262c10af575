"""Sign-ins that fail are slowed down by address: keys cannot be guessed, but trying must not be free either."""

from collections import OrderedDict

MAX_FAILURES = 10
"""Failures of one address within `WINDOW_S`."""
WINDOW_S = 60
"""Seconds."""
MAX_ADDRESSES = 10_000
"""Addresses remembered; the one that failed first is forgotten first."""


class Throttle:
    """Counts failures of this process."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, list[int]] = OrderedDict()

    def wait(self, address: str, now: int) -> int:
        """Return how many seconds `address` has to wait; 0 if it may try."""
        recent = [time for time in self._failures.get(address, ()) if time > now - WINDOW_S]
        return recent[0] + WINDOW_S - now if len(recent) >= MAX_FAILURES else 0

    def failed(self, address: str, now: int) -> None:
        """Note a failure."""
        recent = [time for time in self._failures.pop(address, ()) if time > now - WINDOW_S]
        self._failures[address] = [*recent, now][-MAX_FAILURES:]
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
