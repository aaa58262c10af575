"""What a request used: read from the answer as it passes."""

from services.apimgmt.call import Call
from services.apimgmt.usage.estimator import Estimator
from services.apimgmt.usage.tokens import Tokens


class UsageReader:
    """One per answer of the upstream. Never raises, whatever passes."""

    first_token_at: float | None
    """`time.perf_counter()` when the first content passed; None before, and for answers that are no streams."""

    def __init__(self, call: Call, status: int, content_type: str, estimator: Estimator) -> None:
        raise NotImplementedError

    def feed(self, chunk: bytes, last: bool) -> bytes:
        """Return what goes on to the client in place of `chunk`."""
        raise NotImplementedError

    def tokens(self) -> Tokens | None:
        """Return what was used: from `usage`, else estimated; None if the model did nothing (an error).

        May be asked at any time, also before the last chunk (the answer was cut off). Teaches the estimator, once.
        """
        raise NotImplementedError
