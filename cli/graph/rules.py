"""Evaluates the CEL rules of a structural schema (`x-kubernetes-validations`) with the `cel` package.

A rule that cannot be evaluated here is named, never passed over. Rules over `oldSelf` compare with the object's former
state and do not run when it is created, neither here nor in the API server.

Source: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions", "Validation rules", and
"Common Expression Language in Kubernetes", 1.35. The Python package is `common-expression-language` 0.10.
"""

import ipaddress
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from cli.graph.findings import Findings, is_at_or_below, unknown_paths
from cli.graph.formats import parse_date_time, parse_duration
from cli.graph.structural import Schema

try:
    import cel
except ImportError:  # an installation without the package still checks structure
    cel = None  # type: ignore[assignment]

_RESERVED = frozenset(
    "true false null in as break const continue else for function if import let loop package namespace return var void "
    "while".split()
)
_ESCAPES = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))
_PARSED: dict[str, Callable[[str], object]] = {
    "duration": parse_duration,
    "date-time": parse_date_time,
}


def evaluate_rules(nodes: Iterable[tuple[Any, Schema, str]], findings: Findings, *, partial: bool) -> None:
    """Evaluate the rules of each node that has no structural error.

    Args:
        nodes: (value with defaults, its schema, its path) for each value whose schema has rules.
        findings: gets an error for each rule that does not hold.
        partial: the object is a patch: rules are named as not evaluated, since they judge the merged object.
    """
    for value, schema, path in nodes:
        rules = [rule for rule in schema["x-kubernetes-validations"] if not _is_transition(rule)]
        if any(is_at_or_below(error.path, path) for error in findings.errors):
            continue  # the server refuses the object before its rules run
        if partial:
            findings.not_evaluated.extend(f"{path or '(root)'}: rule `{_one_line(rule)}` (a patch)" for rule in rules)
        elif any(unknown_paths(value, path)):
            findings.undecided.extend(f"{path or '(root)'}: rule `{_one_line(rule)}`" for rule in rules)
        else:
            for rule in rules:
                _evaluate(rule, value, schema, path, findings)


def _is_transition(rule: Mapping[str, Any]) -> bool:
    return bool(re.search(r"\boldSelf\b", rule["rule"])) and not rule.get("optionalOldSelf")


def _evaluate(rule: Mapping[str, Any], value: Any, schema: Schema, path: str, findings: Findings) -> None:
    source = rule["rule"]
    problem = _unsupported(source, value)
    if not problem:
        variables = {"self": to_cel(value, schema)}
        try:
            if _program(source).execute(cel.Context(variables, _FUNCTIONS)) is True:
                return
        except KeyError as error:  # the server refuses the object when a rule fails to run
            findings.error(path, value, f"the rule `{_one_line(rule)}` to hold", f"It needs the field {error}")
            return
        except Exception as error:  # noqa: BLE001 - the package documents no closed set
            problem = str(error).splitlines()[0]
        else:
            message = _message(rule, variables, path, findings)
            where = f"{path}{rule.get('fieldPath', '')}".lstrip(".")
            findings.error(where, value, f"the rule `{_one_line(rule)}` to hold", message)
            return
    findings.not_evaluated.append(f"{path or '(root)'}: rule `{_one_line(rule)}` ({problem})")


def _unsupported(source: str, value: Any) -> str | None:
    if cel is None:
        return "the package `common-expression-language` is not installed"
    if "oldSelf" in source:
        return "optionalOldSelf is not supported"
    if "size(" in source and not _is_ascii(value):
        return "the package counts bytes where CEL counts characters"
    return None


def _is_ascii(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(str(key).isascii() and _is_ascii(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_ascii, value))
    return not isinstance(value, str) or value.isascii()


def _message(rule: Mapping[str, Any], variables: dict[str, Any], path: str, findings: Findings) -> str:
    """Return what the rule's author wants to be told. A computed message could repeat a secret."""
    expression = rule.get("messageExpression")
    if expression and not findings.touches_secret(path):
        try:
            message = _program(expression).execute(cel.Context(variables, _FUNCTIONS))
        except Exception:  # noqa: BLE001 - the server falls back to `message` too
            message = None
        if isinstance(message, str) and message.strip():
            return message.rstrip(". \n")
    return " ".join(str(rule.get("message") or "Change the value").split()).rstrip(".")


def _one_line(rule: Mapping[str, Any]) -> str:
    return " ".join(str(rule["rule"]).split())


def to_cel(value: Any, schema: Schema) -> Any:
    """Return `value` as rules see it: escaped field names, parsed durations and times, null fields absent."""
    if isinstance(value, Mapping):
        properties = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        other: Schema = extra if isinstance(extra, Mapping) else {}
        return {
            (_escape(name) if name in properties else name): to_cel(item, properties.get(name, other))
            for name, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        items = schema.get("items")
        return [to_cel(item, items if isinstance(items, Mapping) else {}) for item in value]
    if schema.get("type") == "number" and isinstance(value, int):
        return float(value)  # so that `/` does not divide as integers do
    parse = _PARSED.get(str(schema.get("format")))
    return parse(value) if parse and isinstance(value, str) else value


def _escape(name: str) -> str:
    if name in _RESERVED:
        return f"__{name}__"
    for character, escape in _ESCAPES:
        name = name.replace(character, escape)
    return name


@lru_cache(maxsize=2048)
def _program(source: str) -> "cel.Program":
    return cel.compile(source)


def _accepts(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _url(text: str) -> None:
    parts = urllib.parse.urlsplit(text)  # Go: url.ParseRequestURI, an absolute URI or an absolute path
    if not (parts.scheme or text.startswith("/")):
        raise ValueError(text)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "isURL": _accepts(_url),
    "isIP": _accepts(ipaddress.ip_address),
    "isCIDR": _accepts(ipaddress.ip_network),
    "split": lambda text, separator: text.split(separator),
    "join": lambda texts, separator="": separator.join(texts),
    "lowerAscii": lambda text: text.lower(),
    "upperAscii": lambda text: text.upper(),
    "trim": lambda text: text.strip(),
    "replace": lambda text, old, new: text.replace(old, new),
}
"""CEL functions of Kubernetes' libraries that the package lacks. Others are reported as not evaluated."""
