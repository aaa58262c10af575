"""A local copy of one collection of Kubernetes objects: list once, then watch, for as long as the process lives.

A watch that breaks is resumed where it was; one whose place the server no longer knows (410 Gone) starts over with a
list. In the meantime the copy stays as it was. Source: Kubernetes, "API Concepts", efficient detection of changes.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Generic, NoReturn, TypeVar

import httpx2
import orjson

from services.kube.credentials import Credentials, CredentialsError

PAGE = 500
"""Objects of one page of a list, as client-go's pager takes."""

WATCH_S = (300, 600)
"""Seconds after which the server is asked to end a watch: spread, so that pickers do not come back all at once."""

SILENCE_S = 90.0
"""Longest silence of a watch that is believed, seconds: the API server's bookmarks come about once a minute, and a
connection that was lost without a word looks like silence."""

ABSENT_S = 60.0
"""How often an optional collection that does not exist is asked for again, seconds."""

BACKOFF_S = (0.2, 15.0)
"""First and longest pause between attempts, seconds; each is twice the one before, times 0.5 to 1 by chance."""

RELIST_AFTER = 4
"""Failures in a row after which the place in the history is given up for a new list: a server that was restored from a
backup never reaches it."""

STEADY_S = 5.0
"""A watch that held so long, seconds, ends a row of failures."""

MAX_LINE_BYTES = 16 * 1024 * 1024
"""Longest event that is read, bytes; objects have at most about 1.5 MiB (etcd's limit for a request)."""

FORBIDDEN, NOT_FOUND, GONE = 403, 404, 410

logger = logging.getLogger("penstock.kube")

T = TypeVar("T")


class ApiError(Exception):
    """The API server refused: `status` is its HTTP code, the text its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message[:300]}")
        self.status = status


class Broken(Exception):
    """The answer was cut off, fell silent, or was not what a watch sends. `reason` is a word for metrics."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Collection(Generic[T]):
    """Objects by name, each decoded to what is needed of it. Used from the event loop's thread only."""

    def __init__(
        self,
        credentials: Credentials,
        path: str,
        decode: Callable[[Mapping[str, Any]], T],
        on_change: Callable[[], None],
        *,
        selector: Mapping[str, str] | None = None,
        name: str = "",
        optional: bool = False,
        on_restart: Callable[[str], None] = lambda reason: None,
        backoff_s: tuple[float, float] = BACKOFF_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        """Prepare; `run` does the work.

        Args:
            credentials: the API server.
            path: of the collection, such as `/api/v1/namespaces/inference/pods`.
            decode: makes what is kept from an object; raises KeyError, TypeError or ValueError for one it cannot use.
            on_change: called when the copy is first complete, and after each change of it.
            selector: labels that all objects have.
            name: only the object of that name.
            optional: a collection that does not exist, or must not be read, counts as empty and is asked for again.
            on_restart: called with a word when a watch ended otherwise than agreed.
            backoff_s: as `BACKOFF_S`.
            silence_s: as `SILENCE_S`.
        """
        self.objects: dict[str, T] = {}
        """The copy."""
        self.synced = False
        """A complete list has been read."""
        self.connected = False
        """A watch is open."""
        self._credentials, self._path, self._decode, self._on_change = credentials, path, decode, on_change
        self._query = {
            key: value
            for key, value in {
                "labelSelector": ",".join(f"{k}={v}" for k, v in sorted((selector or {}).items())),
                "fieldSelector": f"metadata.name={name}" if name else "",
            }.items()
            if value
        }
        self._optional, self._on_restart = optional, on_restart
        self._backoff_s, self._silence_s = backoff_s, silence_s
        self._version = ""
        """Where to resume; empty means that a list is needed."""
        self._failures = 0
        self._complaint = ""

    async def run(self) -> None:
        """Keep the copy true until cancelled."""
        while True:
            try:
                async with self._credentials.connect() as client:
                    await self._follow(client)
            except ApiError as error:
                pause = self._refused(error)
            except (Broken, httpx2.HTTPError, httpx2.StreamError, CredentialsError, OSError) as error:
                pause = self._lost(error)
            except Exception as error:
                logger.exception("a watch failed")  # and goes on: a view that nobody renews would look fresh
                pause = self._lost(error)
            await asyncio.sleep(pause)

    async def _follow(self, client: httpx2.AsyncClient) -> NoReturn:
        """List if need be, then watch again and again. Ends by an exception."""
        while True:
            if not self._version:
                await self._list(client)
            began = time.monotonic()
            try:
                await self._watch(client)
            finally:
                self.connected = False
                if time.monotonic() - began > STEADY_S:
                    self._failures, self._complaint = 0, ""
            if time.monotonic() - began <= STEADY_S:
                raise Broken("short", "the watch ended at once")

    async def _list(self, client: httpx2.AsyncClient) -> None:
        objects: dict[str, T] = {}
        query = {**self._query, "limit": str(PAGE)}
        while True:
            answer = await client.get(self._path, params=query)
            _check(answer.status_code, answer.content)
            page = _parse(answer.content)
            try:
                for item in page["items"] or ():
                    objects[item["metadata"]["name"]] = self._decode(item)
                metadata = page["metadata"]
                version, onward = metadata["resourceVersion"], metadata.get("continue")
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise Broken("garbage", f"not a list of objects: {type(error).__name__}") from None
            if not onward:
                break
            query["continue"] = onward
        changed = not self.synced or objects != self.objects
        self.objects, self._version, self.synced = objects, version, True
        if changed:
            self._on_change()

    async def _watch(self, client: httpx2.AsyncClient) -> None:
        """Take events in until the server ends the watch as agreed."""
        query = {
            **self._query,
            "watch": "true",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(*WATCH_S)),
        }
        timeout = httpx2.Timeout(self._silence_s, connect=client.timeout.connect)
        async with client.stream("GET", self._path, params=query, timeout=timeout) as answer:
            if answer.status_code != 200:
                _check(answer.status_code, await answer.aread())
            self.connected = True
            async for line in _lines(answer):
                self._take(line)

    def _take(self, line: bytes) -> None:
        """Take one event in. Raises ApiError for an error event, Broken for what is none: both need a new list."""
        self._version, before = "", self._version
        try:
            event = _parse(line)
            kind, item = event["type"], event["object"]
            if kind == "ERROR":
                raise ApiError(int(item.get("code", 500)), str(item.get("message", "")))
            metadata = item["metadata"]
            version = str(metadata["resourceVersion"])
            if kind in ("ADDED", "MODIFIED", "DELETED"):
                self._change(metadata["name"], None if kind == "DELETED" else self._decode(item))
            elif kind != "BOOKMARK":
                version = before  # a kind of event that came later than this
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Broken("garbage", f"not an event of a watch: {type(error).__name__}") from None
        self._version = version

    def _change(self, name: str, value: T | None) -> None:
        before = self.objects.get(name)
        if value is None:
            self.objects.pop(name, None)
        else:
            self.objects[name] = value
        if before != value:
            self._on_change()

    def _refused(self, error: ApiError) -> float:
        """Judge a refusal; return the pause before the next attempt, seconds."""
        self._on_restart("gone" if error.status == GONE else "refused")
        if error.status == GONE:
            self._version = ""
            return self._pause() if self._failures else self._count()
        if not (self._optional and error.status in (FORBIDDEN, NOT_FOUND)):
            self._complain(str(error))
            return self._pause()
        if error.status == FORBIDDEN:
            self._complain(f"{error}; taken as empty")
        changed = not self.synced or bool(self.objects)
        self.objects, self.synced, self._version = {}, True, ""
        if changed:
            self._on_change()
        return ABSENT_S * random.uniform(0.5, 1)

    def _lost(self, error: Exception) -> float:
        silent = isinstance(error, httpx2.TimeoutException)
        reason = error.reason if isinstance(error, Broken) else "silent" if silent else "cut"
        self._on_restart(reason)
        if reason == "garbage":
            self._version = ""
        if reason not in ("short", "silent"):
            self._complain(f"{type(error).__name__}: {error}")
        return self._pause()

    def _pause(self) -> float:
        first, longest = self._backoff_s
        self._count()
        return float(min(longest, first * 2 ** min(self._failures - 1, 16)) * random.uniform(0.5, 1))

    def _count(self) -> float:
        self._failures += 1
        if self._failures >= RELIST_AFTER:
            self._version = ""
        return 0.0

    def _complain(self, text: str) -> None:
        """Log what is wrong, once for each row of equal failures."""
        if text != self._complaint:
            self._complaint = text
            kept = (
                f"the last view of {len(self.objects)} objects stays in use" if self.synced else "nothing is known yet"
            )
            logger.warning(f"Kubernetes API: {self._path}: {kept}", extra={"error": text, "query": self._query})


def _check(status: int, content: bytes) -> None:
    if status == 200:
        return
    try:
        message = str(orjson.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        message = content[:200].decode("utf-8", "replace")
    raise ApiError(status, message)


def _parse(text: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(text)
    except ValueError:
        raise Broken("garbage", "not JSON") from None
    if not isinstance(value, dict):
        raise Broken("garbage", "not a JSON object")
    return value


async def _lines(answer: httpx2.Response) -> AsyncIterator[bytes]:
    """Yield complete lines. What stands behind the last line's end was cut off and is dropped: it will come again."""
    rest = bytearray()
    async for piece in answer.aiter_bytes():
        rest += piece
        if b"\n" not in piece:
            if len(rest) > MAX_LINE_BYTES:
                raise Broken("garbage", f"a line of more than {MAX_LINE_BYTES} bytes")
            continue
        *lines, tail = bytes(rest).split(b"\n")
        rest = bytearray(tail)
        for line in lines:
            if line.strip():
                yield line
