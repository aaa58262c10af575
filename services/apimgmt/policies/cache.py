"""Policy `cache`: answers requests from memory that were answered before. Default the last of the chain.

Only what repeats is kept: text generated at temperature 0 with one choice, vectors, scores. `requests: all` together
with the chain's `when` makes another rule. Kept are whole answers with status 200 of at most 1 MiB, as the client got
them: filters behind this service on the request (guardrails) stand before it on the response, so that what is kept has
passed them. A hit is not sent through them again: a stricter guardrail takes hold when the entry has expired.

`id` and `created` of a repeated answer stay as they were stored, and so does `usage`. The header `Cache-Status` (RFC
9211) tells what was done: `penstock; hit; ttl=60`, `penstock; fwd=uri-miss; stored`, `penstock; fwd=request` (the
client sent `Cache-Control: no-cache` or `no-store`, RFC 9111) or `penstock; fwd=bypass` (not a request to keep).
`stored` says that the answer will be kept if it arrives whole.
"""

import time
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from services.apimgmt.call import MAX_KEPT, Call
from services.apimgmt.policies.api import Policy, Tools
from services.apimgmt.response_cache import METRICS, Entry, ResponseCache, is_whole, name_of
from services.extproc.api import Answer, Ending, Outcome, Reply
from services.extproc.config import ConfigModel

HEADER = "cache-status"
SHARED = "response-cache"
"""Name in `Tools.extras` of the process's cache."""

GENERATING = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/responses"))
REPEATING = frozenset(("/v1/embeddings", "/v1/rerank", "/v1/score"))
"""Operations whose answers are the same for the same request, whatever its settings."""
_TOOLS = ("tools", "functions", "web_search_options")
_STATEFUL = ("store", "background", "previous_response_id", "conversation", "kv_transfer_params", "ec_transfer_params")
"""Fields (set to anything but null or false) whose requests leave or need something at the server."""


class CacheSettings(ConfigModel):
    """Settings of the policy `cache`."""

    ttl_seconds: int = Field(default=300, ge=1, le=86_400 * 30)
    scope: Literal["key", "user", "team", "organization", "product"] = "key"
    """Who shares answers. `key`, the default, is the safest: a hit tells (by header and by time) that the same was
    asked before, and nobody should learn that of another. `product`: all who use it, across organizations."""
    share_across_products: bool = False
    """Whether the same caller gets answers that came through another product with this setting. Not with `product`."""
    requests: Literal["deterministic", "all"] = "deterministic"
    """`all`: every request for which the chain's `when` lets the policy run, whatever its temperature."""
    missing_temperature: bool = False
    """Whether a request without `temperature` counts as deterministic: right only where the model's default is 0."""
    allow_tools: bool = False
    """Whether answers to requests with tools are kept: calls of a tool would be repeated."""
    max_bytes: int = Field(default=64 * 1024 * 1024, ge=1024 * 1024, le=16 * 1024**3)
    """Memory of the process's cache, which all products share: the largest value among them holds."""
    max_entries: int = Field(default=10_000, ge=1, le=10_000_000)

    @model_validator(mode="after")
    def _shared(self) -> "CacheSettings":
        if self.share_across_products and self.scope == "product":
            raise ValueError("shareAcrossProducts with scope product would share with everybody; choose a closer scope")
        return self


@dataclass(slots=True)
class _Pending:
    """A request whose answer is to be kept."""

    name: bytes
    shadow: bool
    store: bool = False
    """The answer's headers allow it."""


class Cache(Policy[CacheSettings]):
    """See the module's text. In shadow mode names are kept in place of answers, so that hits can be counted."""

    name = "cache"
    settings_model = CacheSettings
    fail_open = True

    def __init__(self, settings: CacheSettings, tools: Tools) -> None:
        """Use the cache of the process; the first policy makes it."""
        super().__init__(settings, tools)
        self._clock = tools.extras.get("clock", time.time)
        cache = tools.extras.get(SHARED)
        if not isinstance(cache, ResponseCache):
            cache = tools.extras[SHARED] = ResponseCache(settings.max_bytes, settings.max_entries)
            METRICS.watch(cache)
        cache.max_bytes = max(cache.max_bytes, settings.max_bytes)
        cache.max_entries = max(cache.max_entries, settings.max_entries)
        self._cache = cache

    def check(self, call: Call) -> Answer:
        """Answer from the cache, or note that the answer is to be kept."""
        name = self._name(call) if self._keeps(call) else None
        if name is None:
            self._forward(call, "bypass", "bypass")
            return None
        max_age, no_store = _directives(call.exchange.request_headers.get("cache-control"))
        if no_store:
            self._forward(call, "bypass", "request")
            return None
        entry = self._cache.get(name, call.now) if max_age != 0 else None
        if entry is not None and (max_age is None or call.now - entry.stored <= max_age):
            self._count(call, "hit")
            status = f"penstock; hit; ttl={int(entry.expires - call.now)}"
            return Reply(200, entry.body, {"content-type": entry.content_type, HEADER: status}, "response_cache_hit")
        call.state[self.name] = _Pending(name, call.shadow)
        if not call.shadow:
            call.keep_response = True
        refresh = entry is not None or max_age == 0
        self._forward(call, *(("refresh", "request") if refresh else ("miss", "uri-miss")))
        return None

    def on_response(self, call: Call) -> None:
        """Decide by the answer's headers whether it can be kept."""
        pending = call.state.get(self.name)
        if not isinstance(pending, _Pending):
            return
        headers = call.exchange.response_headers
        wanted = "text/event-stream" if call.stream else "application/json"
        length = headers.get("content-length")
        pending.store = (
            headers.get(":status") == "200"
            and headers.get("content-type").partition(";")[0].strip().lower() == wanted
            and headers.get("content-encoding").strip().lower() in ("", "identity")
            and not (length.isdecimal() and len(length) < 16 and int(length) > MAX_KEPT)
            and not {"no-store", "private"} & set(_split(headers.get("cache-control")))
        )
        if pending.store and not pending.shadow:
            call.headers[HEADER] += "; stored"

    def on_done(self, call: Call, outcome: Outcome) -> None:
        """Keep the answer if it is whole."""
        pending = call.state.get(self.name)
        if not isinstance(pending, _Pending) or not pending.store or outcome.ending is not Ending.COMPLETE:
            return
        if not pending.shadow and not is_whole(call.operation, call.response, stream=call.stream):
            return
        now = float(self._clock())
        content_type = call.exchange.response_headers.get("content-type")
        body = b"" if pending.shadow else call.response
        self._cache.put(pending.name, Entry(body, content_type, now, now + self.settings.ttl_seconds))

    def _forward(self, call: Call, result: str, reason: str) -> None:
        self._count(call, result)
        if not call.shadow:
            call.headers[HEADER] = f"penstock; fwd={reason}"

    def _count(self, call: Call, result: str) -> None:
        product = call.product.product.name if call.product else ""
        METRICS.requests.counts[product, result, "true" if call.shadow else "false"] += 1

    def _keeps(self, call: Call) -> bool:
        """Whether the answer to this request may be kept."""
        body, settings = call.body, self.settings
        if call.caller is None or call.product is None or any(body.get(field) for field in _STATEFUL):
            return False
        if not settings.allow_tools and any(body.get(field) is not None for field in _TOOLS):
            return False
        if call.operation in REPEATING:
            return True
        if call.operation not in GENERATING:
            return False
        return settings.requests == "all" or self._deterministic(body.get("temperature"), body)

    def _deterministic(self, temperature: object, body: Any) -> bool:
        if not all(body.get(field) is None or _is(body[field], 1) for field in ("n", "best_of")):
            return False
        return self.settings.missing_temperature if temperature is None else _is(temperature, 0)

    def _name(self, call: Call) -> bytes | None:
        asked = call.body.get("stream_options") if call.stream else None
        options = asked if isinstance(asked, dict) else {}
        usage = options.get("include_usage") is True and not call.strip_usage
        shape = (call.stream, usage, options.get("continuous_usage_stats") is True, options.get("include_obfuscation"))
        return name_of([*self._scope(call), call.model], call.operation, shape, call.body)

    def _scope(self, call: Call) -> list[str]:
        """Return who shares the answer. Only named subjects: an empty name would share with all nameless ones."""
        caller, scope = call.caller, self.settings.scope
        assert caller is not None and call.product is not None  # noqa: S101, PT018 - see _keeps
        product = "*" if self.settings.share_across_products else f"={call.product.product.name}"
        mode = "shadow" if call.shadow else "answer"  # a name without an answer must never be a hit
        if scope == "product":
            return [mode, product, scope]
        start = [mode, product, scope, caller.organization]
        if scope == "organization":
            return start
        if scope == "team" and caller.team:
            return [*start, caller.team]
        if scope == "user" and caller.user:
            return [*start, caller.user]
        return [*start, caller.team, caller.user, caller.app, caller.key, caller.credential.value]


def _is(value: object, number: int) -> bool:
    return type(value) in (int, float) and value == number


def _split(header: str) -> list[str]:
    return [part.strip().lower() for part in header.split(",")] if header else []


def _directives(header: str) -> tuple[int | None, bool]:
    """Return the oldest answer that a client takes, seconds (None: any), and whether nothing may be kept."""
    parts = _split(header)
    ages = [part.partition("=")[2].strip('"') for part in parts if part.startswith("max-age=")]
    seconds = [int(age) for age in ages if age.isdecimal() and len(age) < 10]
    return 0 if "no-cache" in parts else min(seconds, default=None), "no-store" in parts
