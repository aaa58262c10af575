"""A circuit breaker: after failures in a row a service is left alone for a while, then probed by one request."""

from collections.abc import Callable


class Breaker:
    """Closed: requests pass. Open: none does. After `open_s` one request probes; its result closes or opens again."""

    __slots__ = ("_clock", "_failures", "_open_s", "_opened", "_probing", "_threshold")

    def __init__(self, threshold: int, open_s: float, clock: Callable[[], float]) -> None:
        """`threshold`: failures in a row that open it; `clock` is monotonic, seconds."""
        self._threshold, self._open_s, self._clock = threshold, open_s, clock
        self._failures, self._opened, self._probing = 0, 0.0, False

    @property
    def open(self) -> bool:
        """Whether the last state change was to open."""
        return self._failures >= self._threshold

    def admits(self) -> bool:
        """Tell whether a request may go out; it must then be followed by `succeeded`, `failed` or `abandoned`."""
        if not self.open:
            return True
        if self._probing or self._clock() - self._opened < self._open_s:
            return False
        self._probing = True
        return True

    def succeeded(self) -> bool:
        """The service answered. Returns whether this closed the circuit."""
        closed, self._failures, self._probing = self.open, 0, False
        return closed

    def failed(self) -> bool:
        """The service did not. Returns whether this opened the circuit."""
        was_open = self.open
        if was_open and not self._probing:
            return False  # it had begun before the circuit opened
        self._failures += 1
        if self.open:
            self._opened, self._probing = self._clock(), False
        return self.open and not was_open

    def abandoned(self) -> None:
        """The request was given up for a reason that says nothing of the service."""
        self._probing = False
