"""Policy `validation`: requests must fit the OpenAPI document of their operation. See `openapi/`.

A valid request costs some microseconds (the engine looks at the parsed body as it is). A refused one gets 400 in
OpenAI's shape, whose `param` names the field. Operations that no document describes pass.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import orjson
from jsonschema_rs import Validator
from pydantic import Field, model_validator

from services.apimgmt.call import Call
from services.apimgmt.openapi import compiler, documents, errors, unknown
from services.apimgmt.openapi.compiler import Checker
from services.apimgmt.policies.api import Policy, Tools
from services.extproc.api import Answer, Reply, deny
from services.extproc.config import ConfigModel

Value = Callable[[str, str], str | None]
"""Value of a key-value map's entry."""


class ValidationSettings(ConfigModel):
    """Settings of the policy `validation`."""

    unknown_fields: Literal["allow", "refuse", "remove"] = "allow"
    """Fields that the schema does not name, on every level: passed on, refused, or taken out of the request. What takes
    free content (a tool's `parameters`) has none."""
    document: str | None = None
    """Entry of a key-value map that holds an OpenAPI document, as `map/entry`. Of the paths that it describes it alone
    decides; for all others our own document does."""
    inline: dict[str, Any] | str | None = Field(default=None, alias="schema")
    """The same document right here, as an object or as YAML or JSON text. Not together with `document`."""

    @model_validator(mode="after")
    def _one(self) -> "ValidationSettings":
        if self.document is not None and self.inline is not None:
            raise ValueError("document and schema are both set; keep one of them")
        return self


class Validation(Policy[ValidationSettings]):
    """See the module's text."""

    name = "validation"
    settings_model = ValidationSettings

    def __init__(self, settings: ValidationSettings, tools: Tools) -> None:
        """Compile the documents. Raises ValueError with all that is wrong in one, by path."""
        super().__init__(settings, tools)
        remove = settings.unknown_fields == "remove"
        self._checkers = _checkers(settings, tools.value, closed=settings.unknown_fields == "refuse")
        self._closed = _checkers(settings, tools.value, closed=True) if remove else {}

    def check(self, call: Call) -> Answer:
        """Look at the body."""
        checker = self._checkers.get(call.operation)
        if checker is None:
            return None
        try:
            if not checker.validator.is_valid(call.body):
                return _refusal(checker.validator, call.body)
            closed = self._closed.get(call.operation)
            if closed is not None and not closed.validator.is_valid(call.body):
                return _remove(call, checker, closed)
        except (ValueError, TypeError, RecursionError):  # limits of engine and encoder, of depth and of text
            return deny(400, "The body is nested too deeply or holds text that is no Unicode.", code="invalid_value")
        return None


def _refusal(validator: Validator, body: Mapping[str, Any]) -> Reply:
    fault = errors.find(validator, body)
    return deny(400, fault.message, param=fault.param or None, code=fault.code)


def _remove(call: Call, checker: Checker, closed: Checker) -> Reply | None:
    """Take unknown fields out of a body that is valid but for them."""
    body = orjson.loads(orjson.dumps(dict(call.body)))
    unknown.remove(body, checker.schema)
    if not closed.validator.is_valid(body):
        return _refusal(closed.validator, body)
    edited = call.edit()
    edited.clear()
    edited.update(body)
    return None


def problems(settings: ValidationSettings, value: Value) -> Sequence[str]:
    """Return what is wrong with the document of some settings; empty if nothing."""
    try:
        _checkers(settings, value, closed=settings.unknown_fields != "allow")
    except documents.DocumentError as error:
        return error.problems
    return ()


def _checkers(settings: ValidationSettings, value: Value, *, closed: bool) -> Mapping[str, Checker]:
    """Return path -> checker: those of the product's document, and ours for the other paths."""
    name, document = _custom(settings, value)
    if document is None:
        return _built_in(closed)
    try:
        checked = documents.parse(document) if isinstance(document, str) else documents.check(document)
        return {**_built_in(closed), **compiler.checkers(checked, closed=closed)}
    except documents.DocumentError as error:
        raise documents.DocumentError([f"{name}: {problem}" for problem in error.problems]) from None


def _custom(settings: ValidationSettings, value: Value) -> tuple[str, dict[str, Any] | str | None]:
    """Return where the product's document comes from, and the document; None for none."""
    if settings.document is None:
        return "schema", settings.inline
    shown = errors.printable(settings.document[: errors.MAX_SHOWN])
    map_name, _, entry = settings.document.partition("/")
    if not map_name or not entry:
        text = f"document: expected map/entry, found {shown!r}; name an entry of a key-value map"
        raise documents.DocumentError([text])
    found = value(map_name, entry)
    if found is None:
        problem = f"document: there is no entry {shown!r} of a key-value map; add it, or correct the name"
        raise documents.DocumentError([problem])
    return f"document {shown}", found


@functools.cache
def _built_in(closed: bool) -> Mapping[str, Checker]:
    return compiler.checkers(documents.built_in(), closed=closed)
