"""Tokens that were verified lately, by their SHA-256, so that signatures are checked once and Google is asked once."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from services.apimgmt.errors import Refusal
from services.apimgmt.jwt.claims import Verified

MAX_TOKENS = 20_000
MAX_AGE_S = 300.0
"""Longest that a good token is not looked at again: a key that its issuer took back stops working."""
REFUSED_S = 10.0
"""How long a refusal (401, 403) is remembered where it has to be asked for."""

Result = Verified | Refusal


class TokenCache:
    """Bounded; the least recently used are forgotten first."""

    def __init__(
        self, clock: Callable[[], float], monotonic: Callable[[], float], max_tokens: int = MAX_TOKENS
    ) -> None:
        self._clock, self._monotonic, self._max = clock, monotonic, max_tokens
        self._known: OrderedDict[bytes, tuple[Result, float]] = OrderedDict()
        """Digest -> result and until when (monotonic)."""
        self._asked: dict[bytes, asyncio.Task[Result]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, digest: bytes) -> Result | None:
        """Return what is known of a token, if it holds still."""
        found = self._known.get(digest)
        if found is None:
            return None
        result, until = found
        if self._monotonic() >= until or (isinstance(result, Verified) and self._clock() >= result.until):
            del self._known[digest]
            return None
        self._known.move_to_end(digest)
        return result

    def put(self, digest: bytes, result: Result) -> None:
        """Remember a result; nothing that is only so at the moment (status 500 and above)."""
        if isinstance(result, Refusal) and result.status >= 500:
            return
        age = MAX_AGE_S if isinstance(result, Verified) else REFUSED_S
        self._known[digest] = (result, self._monotonic() + age)
        if len(self._known) > self._max:
            self._known.popitem(last=False)

    async def once(self, digest: bytes, ask: Callable[[], Awaitable[Result]]) -> Result:
        """Ask about a token, once for all who wait for it at the same time."""
        task = self._asked.get(digest)
        if task is None:
            task = self._asked[digest] = asyncio.create_task(self._ask(digest, ask), name="token")
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """End what is under way."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, digest: bytes, ask: Callable[[], Awaitable[Result]]) -> Result:
        try:
            result = await ask()
            self.put(digest, result)
            return result
        finally:
            self._asked.pop(digest, None)


def digest_of(token: str) -> bytes:
    """Return the key of a token in the cache."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
