"""Rules of a regional Cloud Armor policy."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, did_you_mean
from .common import check_range, check_word

if TYPE_CHECKING:
    from ..armor import Armor, ArmorRule, RateLimit

TYPE = "CLOUD_ARMOR"
"""Backend policies, the only type that Application Load Balancers take. Source: Compute API v1, SecurityPolicy."""

DEFAULT_PRIORITY = 2_147_483_647
"""Priority of the rule that every policy ends with. Source: Compute API v1, SecurityPolicyRule."""

THROTTLE_MAX, BAN_MAX = 1_000_000, 10_000
"""Largest thresholds, in requests. Source: Cloud Armor, "Rate limiting overview"."""

INTERVAL_S = (10, 3600)
HEADERS_MAX = 3
"""Most keys of one limit. Source: Compute API v1, `enforceOnKeyConfigs`."""

_FIRST_RULE, _FIRST_LIMIT = 1000, 10_000
_KEYS = ("ALL", "HTTP_PATH", "SNI")
_IP_KEYS = ("IP", "XFF_IP", "USER_IP", "REGION_CODE")
_STATUSES = (403, 404, 429, 502)
_ACTIONS = ("allow", "deny(403)", "deny(404)", "deny(502)")
_EVERYTHING = {"versioned_expr": "SRC_IPS_V1", "config": {"src_ip_ranges": ["*"]}}
_CLIENT_ADDRESS = re.compile(r"\b(origin\.(ip|user_ip|region_code|asn)|evaluateThreatIntelligence)\b")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_EXPRESSION_MAX = 2048
"""Longest expression, in characters. Source: Cloud Armor, "Quotas and limits"."""
_WHY_NOT_IP = "a rule that does not look at the client's address, since behind Private Service Connect all share NAT's"
_IP_FIX = "Key it by a header such as the API key, or set `allow_ip_keys` if clients reach the Gateway directly"


def rules(armor: "Armor") -> list[dict[str, Any]]:
    """Return the policy's rules, in the provider's snake_case: own rules, limits, then the default that allows."""
    found = [_rule(_FIRST_RULE + at, rule) for at, rule in enumerate(armor.get("rules", []))]
    found += [_limit(_FIRST_LIMIT + at, limit) for at, limit in enumerate(armor.get("rate_limits", []))]
    default = {"action": "allow", "priority": DEFAULT_PRIORITY, "match": _EVERYTHING, "description": "Default"}
    return [*found, default]


def problems(armor: "Armor", path: str) -> Iterator[ConfigError]:
    """Yield every reason why the policy is refused."""
    by_ip = armor.get("allow_ip_keys", False)
    limits = armor.get("rate_limits", [])
    if not limits and not armor.get("rules"):
        yield ConfigError(path, dict(armor), "at least one of `rate_limits` and `rules`", "Add a limit, or remove it")
    for at, rule in enumerate(armor.get("rules", [])):
        where = f"{path}.rules[{at}]"
        yield from check_word(f"{where}.action", rule["action"], _ACTIONS, "an action")
        yield from _match_problems(rule["match"], f"{where}.match", by_ip)
    for at, limit in enumerate(limits):
        yield from _limit_problems(limit, f"{path}.rate_limits[{at}]", by_ip)
    yield from _unreachable(limits, f"{path}.rate_limits")


def _rule(priority: int, rule: "ArmorRule") -> dict[str, Any]:
    found: dict[str, Any] = {"action": rule["action"], "priority": priority, "match": _match(rule["match"])}
    return found | _common(rule)


def _limit(priority: int, limit: "RateLimit") -> dict[str, Any]:
    options: dict[str, Any] = {
        "conform_action": "allow",
        "exceed_action": f"deny({limit.get('status', 429)})",
        "rate_limit_threshold": {"count": limit["count"], "interval_sec": limit["interval_s"]},
    }
    headers = limit.get("headers", [])
    if len(headers) > 1:
        keys = [{"enforce_on_key_type": "HTTP_HEADER", "enforce_on_key_name": header} for header in headers]
        options["enforce_on_key_configs"] = keys
    elif headers:
        options |= {"enforce_on_key": "HTTP_HEADER", "enforce_on_key_name": headers[0]}
    else:
        options["enforce_on_key"] = limit["key"]
    if "ban_s" in limit:
        options["ban_duration_sec"] = limit["ban_s"]
    action = "rate_based_ban" if "ban_s" in limit else "throttle"
    return {
        "action": action,
        "priority": priority,
        "match": _match(limit.get("match")),
        "rate_limit_options": options,
    } | _common(limit)


def _match(expression: str | None) -> dict[str, Any]:
    return {"expr": {"expression": expression}} if expression else _EVERYTHING


def _common(rule: "ArmorRule | RateLimit") -> dict[str, Any]:
    found: dict[str, Any] = {"preview": True} if rule.get("preview") else {}
    return found | ({"description": rule["description"]} if rule.get("description") else {})


def _limit_problems(limit: "RateLimit", path: str, by_ip: bool) -> Iterator[ConfigError]:
    most, what = (BAN_MAX, "a ban's threshold") if "ban_s" in limit else (THROTTLE_MAX, "a throttle's threshold")
    yield from check_range(f"{path}.count", limit["count"], 1, most, f"{what} in requests")
    yield from check_range(f"{path}.interval_s", limit["interval_s"], *INTERVAL_S, "seconds")
    if "ban_s" in limit:
        yield from check_range(f"{path}.ban_s", limit["ban_s"], 10, 86_400, "seconds")
    status = limit.get("status", 429)
    if status not in _STATUSES:
        yield ConfigError(f"{path}.status", status, f"one of {', '.join(map(str, _STATUSES))}", "Choose one of them")
    if "match" in limit:
        yield from _match_problems(limit["match"], f"{path}.match", by_ip)
    yield from _key_problems(limit, path, by_ip)


def _key_problems(limit: "RateLimit", path: str, by_ip: bool) -> Iterator[ConfigError]:
    headers, key = limit.get("headers"), limit.get("key")
    if (headers is None) == (key is None):
        given = {"headers": headers, "key": key}
        yield ConfigError(path, given, "exactly one of `headers` and `key`", "Name the header that tells clients apart")
    if headers is not None and not 1 <= len(headers) <= HEADERS_MAX:
        fix = "Keep those that tell clients apart"
        yield ConfigError(f"{path}.headers", headers, f"1 to {HEADERS_MAX} headers", fix)
    for at, header in enumerate(headers or []):
        if not _HEADER.fullmatch(header):
            yield ConfigError(f"{path}.headers[{at}]", header, "the name of a header", "Write it like `x-api-key`")
    if key in _IP_KEYS and not by_ip:
        yield ConfigError(f"{path}.key", key, _WHY_NOT_IP, _IP_FIX)
    elif key is not None and key not in (*_KEYS, *_IP_KEYS):
        yield ConfigError(f"{path}.key", key, "a key of rate limits", did_you_mean(key, (*_KEYS, *_IP_KEYS)))


def _match_problems(expression: str, path: str, by_ip: bool) -> Iterator[ConfigError]:
    if not 1 <= len(expression) <= _EXPRESSION_MAX:
        fix = "Write a condition such as `request.path.startsWith('/v1/')`"
        yield ConfigError(path, expression, f"a condition of 1 to {_EXPRESSION_MAX} characters", fix)
    if not by_ip and _CLIENT_ADDRESS.search(expression):
        yield ConfigError(path, expression, _WHY_NOT_IP, _IP_FIX)


def _unreachable(limits: "list[RateLimit]", path: str) -> Iterator[ConfigError]:
    """A limit lets what conforms through and ends the search: behind one for the same requests none ever counts."""
    seen: dict[str, int] = {}
    for at, limit in enumerate(limits):
        match = limit.get("match", "")
        earlier = seen.get(match, seen.get(""))
        if earlier is not None:
            expected = f"requests that `rate_limits[{earlier}]` leaves over; only the first match decides"
            fix = "Give the earlier one a narrower `match`, or remove one of them"
            yield ConfigError(f"{path}[{at}]", match or "every request", expected, fix)
        if not limit.get("preview"):
            seen.setdefault(match, at)
