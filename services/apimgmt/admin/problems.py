"""Errors of the admin API as problem details (RFC 9457, `application/problem+json`)."""

import http
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from services.apimgmt.store.api import Conflict, StoreError
from services.extproc.config import MAX_SHOWN, ConfigError, Problem

MEDIA_TYPE = "application/problem+json"

logger = logging.getLogger("penstock.apimgmt.admin")


class ProblemError(Exception):
    """Ends a request with a problem. `detail` is for people, `code` for programs; neither holds a secret."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Problem] = (),
        referrers: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.errors, self.referrers, self.headers = tuple(errors), tuple(referrers), dict(headers or {})


class ProblemField(BaseModel):
    """One thing that is wrong with a request."""

    path: str = Field(description="Where, as in `models[0]`.", examples=["limits[0]"])
    value: str = Field(description="What was found, shortened.", examples=["'gold'"])
    expected: str = Field(examples=["expected the name of a limit"])
    fix: str = Field(examples=["create the limit first, or use one of: burst, daily"])


class ProblemDetails(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(json_schema_extra={"required": ["type", "title", "status", "code", "detail"]})

    type: str = Field(default="about:blank", description="Always `about:blank`: `code` tells problems apart.")
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    code: str = Field(examples=["invalid"])
    detail: str = Field(examples=["the product cannot be saved: 1 problem"])
    errors: list[ProblemField] = Field(default_factory=list, description="With code `invalid`: all of them at once.")
    referrers: list[str] = Field(default_factory=list, description="With code `referred`: what has to go first.")


def not_found(what: str) -> ProblemError:
    """Return the answer for what is not there, or not for this caller to see."""
    return ProblemError(404, "not_found", f"{what}: there is none, or it is not yours to see")


def invalid(what: str, errors: Sequence[Problem]) -> ProblemError:
    """Return the answer for a document that cannot be saved."""
    count = f"{len(errors)} problem" + ("s" if len(errors) != 1 else "")
    return ProblemError(422, "invalid", f"{what} cannot be saved: {count}", errors=errors)


def bad_parameter(name: str, value: str, expected: str, fix: str) -> ProblemError:
    """Return the answer for a query parameter or header that cannot be understood."""
    return ProblemError(400, "bad_request", f"{name}: {expected}", errors=[Problem(name, repr(value), expected, fix)])


def response(error: ProblemError) -> JSONResponse:
    """Return a problem as a response."""
    try:
        title = http.HTTPStatus(error.status).phrase
    except ValueError:
        title = "Error"
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": error.status, "code": error.code}
    body["detail"] = error.detail
    if error.errors:
        body["errors"] = [asdict(problem) for problem in error.errors]
    if error.referrers:
        body["referrers"] = list(error.referrers)
    return JSONResponse(body, error.status, error.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem."""
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(RequestValidationError, _parameters)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ConfigError, _config)
    app.add_exception_handler(StoreError, _store)
    app.add_exception_handler(Exception, _unexpected)


async def _problem(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)  # noqa: S101 - told apart by Starlette
    return response(error)


async def _parameters(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    problems = [
        Problem(
            str(detail["loc"][-1]), repr(detail.get("input"))[:MAX_SHOWN], str(detail["msg"]), "correct the parameter"
        )
        for detail in error.errors()
    ]
    text = "; ".join(str(problem) for problem in problems)
    return response(ProblemError(400, "bad_request", f"parameters are wrong: {text}", errors=problems))


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    codes = {404: "not_found", 405: "method_not_allowed"}
    return response(
        ProblemError(error.status_code, codes.get(error.status_code, "error"), str(error.detail), headers=error.headers)
    )


async def _config(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ConfigError)  # noqa: S101
    return response(invalid(error.source, error.problems))


async def _store(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Conflict):
        return response(ProblemError(409, "conflict", f"changed meanwhile: {error}; read it again"))
    logger.error("the store cannot be used", extra={"error": str(error)})
    return response(ProblemError(503, "store_unavailable", "the store cannot be used at the moment; try again"))


async def _unexpected(_: Request, error: Exception) -> JSONResponse:
    logger.error("a request of the admin API failed", exc_info=error)
    return response(ProblemError(500, "internal", "this should not happen; the log of the service has the cause"))
