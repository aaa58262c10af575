"""What clients say and how they identify themselves stays out of every log, even at the most talkative level."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.dataplane.echo import ALPHA
from tests.support.http2 import Http2Client
from tests.support.stack import Stack, eventually

pytestmark = pytest.mark.xdist_group("echo-stack")

PROMPT, KEY, QUERY, COOKIE = "a-prompt-nobody-may-log", "sk-nobody-may-log", "query-nobody-may-log", "cookie-no-log"
SECRETS = (PROMPT, KEY, QUERY, COOKIE)
HEADERS = {
    "authorization": f"Bearer {KEY}",
    "api-key": KEY,
    "cookie": f"session={COOKIE}",
    "x-goog-api-key": KEY,
    "proxy-authorization": f"Basic {KEY}",
}
COMPLETIONS = f"/v1/completions?token={QUERY}"
DENIED = [
    ("/v1/completions", {"prompt": PROMPT}),
    ("/v1/completions", {"model": 7, "prompt": PROMPT}),
    ("/v1/completions", [PROMPT]),
    ("/v1/nowhere", {"model": ALPHA, "prompt": PROMPT}),
]


async def test_no_log_holds_a_body_a_credential_or_a_query(echo: Stack) -> None:
    json_type = {"content-type": "application/json"}
    async with httpx.AsyncClient(base_url=echo.url, headers=HEADERS, trust_env=False, timeout=20) as http:
        good: dict[str, Any] = {"model": ALPHA, "prompt": PROMPT, "say": PROMPT}
        assert (await http.post(COMPLETIONS, json=good)).json()["say"] == PROMPT
        for path, body in DENIED:
            assert (await http.post(path, json=body)).status_code in (400, 404)
        broken = json.dumps(good).encode()[:-1]
        assert (await http.post(COMPLETIONS, content=broken, headers=json_type)).status_code == 400
        large = PROMPT.encode() * 600_000
        assert (await http.post(COMPLETIONS, content=large, headers=json_type)).status_code == 413
        stream = {"model": ALPHA, "prompt": " ".join([PROMPT] * 50), "stream": True, "gap": 0.01}
        async with http.stream("POST", COMPLETIONS, json=stream) as answer:
            await anext(answer.aiter_lines())  # and gone
        with Http2Client(echo.port) as client:
            fields = [*json_type.items(), *((name, value) for name, value in HEADERS.items())]
            await asyncio.to_thread(client.post, COMPLETIONS, fields, b"{" + PROMPT.encode(), [("x-token", KEY)])
        await http.get(f"/v1/models?token={QUERY}", headers={"x-request-id": "the-last-request"})

    logs = echo.log("envoy").parent

    async def written() -> bool:
        return "the-last-request" in (logs / "access.log").read_text()

    await eventually(written, "the access log is complete")
    texts = {path: path.read_text() for path in _files(logs)}
    assert {"access.log", "body-router.log", "alpha-a-picker.log", "envoy.log"} <= {path.name for path in texts}
    assert all('"DEBUG"' in texts[logs / f"{name}.log"] for name in ("body-router", "alpha-a-picker"))
    found = [(path.name, secret) for path, text in texts.items() for secret in SECRETS if secret in text]
    assert found == []


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
