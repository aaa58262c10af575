"""Try it: one chat request through the gateway, with a key that is passed on and forgotten."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import orjson
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from services.apimgmt.admin.problems import ProblemError
from services.apimgmt.portal import holdings
from services.apimgmt.portal.page import (
    BASE,
    PortalRoute,
    Signed,
    State,
    Submission,
    Submitted,
    Visitor,
    render,
    state_of,
)

MAX_TRIES = 8
"""Requests under way in this process."""
MAX_ANSWER = 4 * 1024 * 1024
"""Longest answer that is passed on, bytes."""
MAX_PROMPT = 100_000
"""Characters."""
MAX_TOKENS, DEFAULT_TOKENS = 32_768, 256
CONNECT_S, READ_S, WHOLE_S = 5.0, 120.0, 600.0
"""How long the gateway may take: to be reached, for each piece of an answer, for all of it."""
MAX_KEY = 512
"""Characters of a credential."""

_TYPES = ("application/json", "text/event-stream")
"""What answers may be; everything else is shown as plain text."""
_HEADERS = ("x-request-id", "retry-after", "x-penstock-overhead-ms")
"""What is passed on beside the type."""

router = APIRouter(prefix=BASE, route_class=PortalRoute, include_in_schema=False)


@router.get("/try")
async def page(signed: Signed) -> Response:
    """Show the form, or how to call the gateway where the portal cannot."""
    return await _page(signed, {}, None)


@router.post("/try")
async def send(form: Submitted) -> Response:
    """Pass a request on. The script of the page gets the gateway's answer as it comes; a plain form gets a page."""
    signed = form.visitor
    scripted = signed.request.headers.get("x-requested-with") == "fetch"
    try:
        body, key = _read(form, stream=scripted and form.get("stream") == "on")
    except ProblemError as error:
        if scripted:
            return _error(error.status, error.detail, error.code)
        return await _page(signed, {}, form, problem=error)
    state = state_of(signed.context)
    if state.tries >= MAX_TRIES:
        return _error(503, "Too many requests of the try-it page are under way. Try again in a moment.", "busy")
    if scripted:
        return await _streamed(signed, state, body, key)
    return await _page(signed, await _whole(signed, state, body, key), form)


def _read(form: Submission, *, stream: bool) -> tuple[Mapping[str, Any], str]:
    """Return the request's body and the key. Raises ProblemError (400)."""
    key, prompt, most = form.get("key"), form.fields.get("prompt", ""), form.get("max_tokens")
    if form.visitor.context.settings.portal.endpoint is None:
        raise ProblemError(400, "no_endpoint", "This portal does not know the gateway's address (portal.endpoint).")
    if not key or len(key) > MAX_KEY or not all("!" <= char <= "~" for char in key):
        raise ProblemError(400, "invalid_key", "Paste the API key of an app (psk_...).")
    if key.startswith("psp_"):
        raise ProblemError(400, "invalid_key", "That is a personal key. The gateway takes keys of apps (psk_...).")
    if not prompt.strip() or len(prompt) > MAX_PROMPT:
        raise ProblemError(400, "invalid_prompt", f"Write a prompt of at most {MAX_PROMPT:,} characters.")
    if not most.isascii() or not most.isdigit() or not 1 <= int(most[:9]) <= MAX_TOKENS:
        raise ProblemError(400, "invalid_max_tokens", f"Expected a whole number from 1 to {MAX_TOKENS:,}.")
    body: dict[str, Any] = {"model": form.get("model")[:256], "messages": [{"role": "user", "content": prompt}]}
    body["max_tokens"] = int(most)
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body, key


class _Passed(StreamingResponse):
    """An answer of the gateway on its way, which is let go of however it ends."""

    def __init__(self, asked: "_Asked", answer: httpx2.Response) -> None:
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        headers = {name: answer.headers[name] for name in _HEADERS if name in answer.headers}
        headers |= {
            "content-type": kind if kind in _TYPES else "text/plain; charset=utf-8",
            "cache-control": "no-store",
        }
        super().__init__(asked.pieces(answer), answer.status_code, headers)
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(WHOLE_S):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            pass  # the browser sees the answer end
        finally:
            await self._asked.close()


class _Asked:
    """One request to the gateway."""

    def __init__(self, signed: Visitor, state: State) -> None:
        self._portal, self._state = signed.context.settings.portal, state
        self._answer: httpx2.Response | None = None
        self._client: httpx2.AsyncClient | None = None
        self._open = True
        state.tries += 1

    async def send(self, body: Mapping[str, Any], key: str) -> httpx2.Response:
        """Send it, and wait for the head of the answer. Raises httpx2.HTTPError, OSError."""
        verify: ssl.SSLContext | bool = False
        url = f"{(self._portal.endpoint or '').rstrip('/')}/v1/chat/completions"
        if url.startswith("https:"):
            verify = await asyncio.to_thread(ssl.create_default_context, cafile=self._portal.ca_file)
        timeout = httpx2.Timeout(READ_S, connect=CONNECT_S)
        self._client = httpx2.AsyncClient(verify=verify, timeout=timeout, trust_env=False, follow_redirects=False)
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        request = self._client.build_request("POST", url, headers=headers, content=orjson.dumps(body))
        self._answer = await self._client.send(request, stream=True)
        return self._answer

    async def pieces(self, answer: httpx2.Response) -> AsyncIterator[bytes]:
        """Return the answer as it comes, cut where it gets too long or breaks off."""
        seen = 0
        try:
            async for piece in answer.aiter_bytes():
                seen += len(piece)
                if seen > MAX_ANSWER:
                    return
                yield piece
        except httpx2.HTTPError:
            return  # the browser sees the answer end

    async def close(self) -> None:
        """Let go of the connection. May be called twice."""
        if self._open:
            self._open = False
            self._state.tries -= 1
            if self._answer is not None:
                await self._answer.aclose()
            if self._client is not None:
                await self._client.aclose()


async def _streamed(signed: Visitor, state: State, body: Mapping[str, Any], key: str) -> Response:
    asked = _Asked(signed, state)
    try:
        return _Passed(asked, await asked.send(body, key))
    except (httpx2.HTTPError, OSError) as error:
        await asked.close()
        return _unreachable(error)
    except BaseException:
        await asked.close()
        raise


async def _whole(signed: Visitor, state: State, body: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the answer for a page without script."""
    asked, started = _Asked(signed, state), time.perf_counter()
    try:
        answer = await asked.send(body, key)
        text = b"".join([piece async for piece in asked.pieces(answer)])
        status = answer.status_code
    except (httpx2.HTTPError, OSError) as error:
        failed = _unreachable(error)
        text, status = bytes(failed.body), failed.status_code
    finally:
        await asked.close()
    found: dict[str, Any] = {"status": status, "seconds": time.perf_counter() - started, "usage": {}, "raw": ""}
    try:
        data = orjson.loads(text)
        found["text"] = data["choices"][0]["message"]["content"] or ""
        found["usage"] = data.get("usage") or {}
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        found["text"], found["raw"] = "", text.decode("utf-8", "replace")
    return found


def _unreachable(error: Exception) -> JSONResponse:
    kind = type(error).__name__
    return _error(502, f"The gateway could not be reached ({kind}).", "gateway_unreachable", "api_error")


def _error(status: int, text: str, code: str, kind: str = "invalid_request_error") -> JSONResponse:
    """Return an error in OpenAI's shape, as those of the gateway are."""
    return JSONResponse({"error": {"message": text, "type": kind, "param": None, "code": code}}, status)


async def _page(
    signed: Visitor, answer: Mapping[str, Any], form: Submission | None, problem: ProblemError | None = None
) -> Response:
    apps = [app for app in await holdings.apps(signed) if app.developer == signed.principal.developer]
    models, every = list[str](), False
    for app in apps:
        names, more = await holdings.models(signed, app)
        models, every = [*models, *names], every or more
    fields = form.fields if form else {}
    values: dict[str, Any] = {
        "models": list(dict.fromkeys(models)),
        "every": every,
        "answer": answer,
        "prompt": fields.get("prompt", ""),
        "model": fields.get("model", models[0] if models else ""),
        "max_tokens": fields.get("max_tokens", str(DEFAULT_TOKENS)),
        "most": MAX_TOKENS,
    }
    status = problem.status if problem else 200
    return render(signed.request, signed, "try.html", status, **values, problem=problem)
