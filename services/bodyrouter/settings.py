"""Settings of the body router: which models and adapters exist, and how large a request may be."""

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from services.bodyrouter.headers import NEVER_ALLOWED, canonical, is_trusted
from services.extproc.config import ConfigModel
from services.extproc.limits import MAX_BODY_BYTES

MAX_MODEL_CHARS = 256
"""Longest model name, characters (limit of Google's body based router)."""

LARGEST_BODY_CAP = 64 * 1024 * 1024
"""Highest `maxBodyBytes`, bytes: hostile bodies were measured to take 22 times their size in memory."""

_NAME = re.compile(r"[!-~]+")
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


ModelName = Annotated[str, AfterValidator(_model_name)]


class Model(ConfigModel):
    """A served model and the LoRA adapters that its replicas load."""

    name: ModelName
    """What clients send as `model`, for example `gemma-3-12b`."""
    adapters: list[ModelName] = Field(default_factory=list)
    """Adapter names; each is a model to clients and shares this model's replicas."""


class Settings(ConfigModel):
    """The config file of the body router (docs/architecture.md, "Callout processes")."""

    models: list[Model] = Field(min_length=1)
    max_body_bytes: int = Field(MAX_BODY_BYTES, ge=1024, le=LARGEST_BODY_CAP)
    """Larger request bodies get 413, bytes."""
    allow_client_headers: list[Annotated[str, AfterValidator(_client_header)]] = Field(default_factory=list)
    """Trusted headers that clients may send after all."""

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, data: Any, handler: ModelWrapValidatorHandler["Settings"]) -> "Settings":
        """Add repeated names to what the fields report, so that all problems show at once."""
        problems = list(_repeated(data))
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
    """Yield an error for each name, of a model or an adapter, that an earlier entry already has."""
    owner: dict[str, str] = {}
    for location, name in _names(data):
        where = "models" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location[1:])
        if name in owner:
            kind = PydanticCustomError(
                "repeated_name",
                "name is already that of {owner}; each model and adapter needs its own",
                {"owner": owner[name]},
            )
            yield InitErrorDetails(type=kind, loc=location, input=name)
        else:
            owner[name] = where


def _names(data: Any) -> Iterable[tuple[tuple[int | str, ...], str]]:
    """Yield location and value of every name in raw config; what has the wrong type is left to the fields."""
    models = data.get("models") if isinstance(data, dict) else None
    for i, model in enumerate(models if isinstance(models, list) else []):
        if isinstance(model, Model):
            model = model.model_dump()
        if not isinstance(model, dict):
            continue
        if isinstance(model.get("name"), str):
            yield ("models", i, "name"), model["name"]
        adapters = model.get("adapters")
        for j, adapter in enumerate(adapters if isinstance(adapters, list) else []):
            if isinstance(adapter, str):
                yield ("models", i, "adapters", j), adapter
