"""Settings of the body router: models and adapters, other names and rules for them, and how large a request may be."""

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.alias_generators import to_snake
from pydantic_core import InitErrorDetails, PydanticCustomError

from services.bodyrouter.asked import VARIABLES
from services.bodyrouter.headers import NEVER_ALLOWED, canonical, is_trusted
from services.cel.compiler import Predicate
from services.extproc.config import ConfigModel
from services.extproc.limits import MAX_BODY_BYTES
from services.remote.json_service import RemoteSettings

MAX_MODEL_CHARS = 256
"""Longest model name, characters (limit of Google's body based router)."""

LARGEST_BODY_CAP = 64 * 1024 * 1024
"""Highest `maxBodyBytes`, bytes: hostile bodies were measured to take 22 times their size in memory."""

_NAME = re.compile(r"[!-~]+")
_ROUTE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _model_name(value: str) -> str:
    if not _NAME.fullmatch(value) or len(value) > MAX_MODEL_CHARS:
        raise ValueError(
            f"expected 1 to {MAX_MODEL_CHARS} visible ASCII characters without spaces, because the name becomes a "
            "header value"
        )
    return value


def _client_header(value: str) -> str:
    name = canonical(value)
    if not _HEADER.fullmatch(value):
        raise ValueError("expected a header name, for example x-slo-ttft-ms")
    if name.startswith(NEVER_ALLOWED):
        raise ValueError("this header decides model, replica or identity; clients can never be allowed to send it")
    if not is_trusted(value):
        raise ValueError("this header is not removed anyway; take it off the list")
    return name


def _route_name(value: str) -> str:
    if not _ROUTE.fullmatch(value):
        raise ValueError("expected at most 63 of a-z, 0-9 and -, for example long-prompts")
    return value


def _condition(value: str) -> str:
    Predicate(value, VARIABLES)  # raises ValueError with place and fix
    return value


ModelName = Annotated[str, AfterValidator(_model_name)]


class Model(ConfigModel):
    """A served model and the LoRA adapters that its replicas load."""

    name: ModelName
    """What clients send as `model`, for example `gemma-3-12b`."""
    adapters: list[ModelName] = Field(default_factory=list)
    """Adapter names; each is a model to clients and shares this model's replicas."""


class Alias(ConfigModel):
    """Another name of a model, e.g. one that clients have built in; or a virtual model with its default."""

    name: ModelName
    model: ModelName
    """A served model or adapter: the body's `model` becomes this."""


class PromptRoute(ConfigModel):
    """Requests for one model that another one serves. Of those that match the first decides."""

    name: Annotated[str, AfterValidator(_route_name)]
    """In metrics."""
    model: ModelName
    """What the client asks for: a model, an adapter or an alias."""
    when: Annotated[str, AfterValidator(_condition)]
    """CEL over the request (`asked.py`), for example `promptChars > 20000`."""
    to: ModelName
    """What serves: a model, an adapter or an alias."""


class Classifier(RemoteSettings):
    """A service that chooses the model, where no prompt route has."""

    model: ModelName
    """Requests for this model or alias are classified."""
    fail_open: bool = False
    """What a service that does not answer means: False answers 503, True goes on with `model` itself."""


class Settings(ConfigModel):
    """The config file of the body router (docs/architecture.md, "Callout processes")."""

    models: list[Model] = Field(min_length=1)
    aliases: list[Alias] = Field(default_factory=list)
    prompt_routes: list[PromptRoute] = Field(default_factory=list)
    classifiers: list[Classifier] = Field(default_factory=list)
    max_body_bytes: int = Field(MAX_BODY_BYTES, ge=1024, le=LARGEST_BODY_CAP)
    """Larger request bodies get 413, bytes."""
    allow_client_headers: list[Annotated[str, AfterValidator(_client_header)]] = Field(default_factory=list)
    """Trusted headers that clients may send after all."""

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, data: Any, handler: ModelWrapValidatorHandler["Settings"]) -> "Settings":
        """Add repeated and unknown names to what the fields report, so that all problems show at once."""
        problems = [*_repeated(data), *_unknown(data)]
        try:
            settings = handler(data)
        except ValidationError as error:
            problems += [_detail(detail) for detail in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(cls.__name__, problems) from None
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        return settings


def _detail(detail: Any) -> InitErrorDetails:
    """Keep one reported error as it is: pydantic's types need their context, so its finished text is carried over."""
    # `missing` and `extra_forbidden` have no context and are worded by the config loader
    plain = detail["type"] in ("missing", "extra_forbidden")
    # braces would be read as places of a template
    text = detail["msg"].replace("{", "(").replace("}", ")")
    kind = detail["type"] if plain else PydanticCustomError(detail["type"], text)
    return InitErrorDetails(type=kind, loc=detail["loc"], input=detail["input"])


def _repeated(data: Any) -> Iterable[InitErrorDetails]:
    """Yield an error for each name that an earlier entry of its kind already has: of what clients ask for (models,
    adapters, aliases), of prompt routes, of classified models."""
    asked = [*_names(data), *_entries(data, "aliases", "name")]
    for named in (asked, list(_entries(data, "promptRoutes", "name")), list(_entries(data, "classifiers", "model"))):
        owner: dict[str, str] = {}
        for location, name in named:
            if name in owner:
                kind = PydanticCustomError(
                    "repeated_name",
                    "name is already that of {owner}; each needs its own",
                    {"owner": owner[name]},
                )
                yield InitErrorDetails(type=kind, loc=location, input=name)
            else:
                owner[name] = _shown(location)


def _unknown(data: Any) -> Iterable[InitErrorDetails]:
    """Yield an error for each name that no model or adapter, or alias where one may stand, has."""
    served = {name for _, name in _names(data)}
    asked = served | {name for _, name in _entries(data, "aliases", "name")}
    for key, field, known in (
        ("aliases", "model", served),
        ("promptRoutes", "model", asked),
        ("promptRoutes", "to", asked),
        ("classifiers", "model", asked),
    ):
        for location, name in _entries(data, key, field):
            if name not in known:
                kind = PydanticCustomError(
                    "unknown_model", "unknown model; known: {known}", {"known": ", ".join(sorted(known)[:20]) or "none"}
                )
                yield InitErrorDetails(type=kind, loc=location, input=name)


def _shown(location: Iterable[int | str]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


_Named = Iterable[tuple[tuple[int | str, ...], str]]
"""Locations and names in raw config; what has the wrong type is left to the fields."""


def _names(data: Any) -> _Named:
    """Yield the name of every model and adapter, in the order of the file."""
    found = list(_entries(data, "models", "name"))
    for location, adapters in _values(data, "models", "adapters"):
        names = adapters if isinstance(adapters, list) else []
        found += [((*location, j), name) for j, name in enumerate(names) if isinstance(name, str)]
    return sorted(found, key=lambda entry: (entry[0][1], len(entry[0])))  # a model before its adapters


def _entries(data: Any, key: str, field: str) -> _Named:
    """Yield the texts in `field` of the entries of a list."""
    return ((location, value) for location, value in _values(data, key, field) if isinstance(value, str))


def _values(data: Any, key: str, field: str) -> Iterable[tuple[tuple[int | str, ...], Any]]:
    entries = None
    if isinstance(data, dict):
        entries = data.get(key, data.get(to_snake(key)))
    for i, entry in enumerate(entries if isinstance(entries, list) else []):
        values = entry.model_dump() if isinstance(entry, ConfigModel) else entry
        if isinstance(values, dict) and field in values:
            yield (key, i, field), values[field]
