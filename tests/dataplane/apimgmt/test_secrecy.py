"""No key, token, pepper or prompt is in any log, nor in what the store writes: at level debug (SQLite) and info."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.dataplane.apimgmt.conftest import KEY
from tests.dataplane.apimgmt.managed import CHAT, Managed, chat
from tests.dataplane.apimgmt.test_interruptions import began
from tests.dataplane.apimgmt.test_tokens import BAD, claims
from tests.support.stack import eventually
from tests.support.token_issuer import Issuer

pytestmark = pytest.mark.xdist_group("apimgmt")

PROMPT = "a-prompt-nobody-may-keep"
MAP_VALUE = "a-value-nobody-may-keep"
CACHED = {"policies": [{"policy": "cache"}], "maxOutputTokens": 500}


async def test_no_log_and_no_store_has_a_secret(managed: Managed, issuer: Issuer) -> None:
    tenant = managed.tenant(product=CACHED, app={"oauthClientId": f"quiet-{time.time_ns()}"})
    spare = managed.issue(tenant.name)
    personal = managed.admin.post(f"/organizations/{tenant.name}/developers/ada/keys", json={}).json()["key"]
    client = managed.admin.get(f"/organizations/{tenant.name}/apps/app").json()["oauthClientId"]
    token = KEY.sign(claims(issuer, azp=client))
    bad_tokens = [make(issuer) for make in BAD.values()]
    foreign = "sk-foreign-nobody-may-keep"
    managed.put(f"/keyValueMaps/{tenant.name}", {})
    entry = f"/keyValueMaps/{tenant.name}/entries/word"
    assert managed.admin.put(entry, json={"value": MAP_VALUE}).status_code in (200, 201, 204)

    bodies: list[dict[str, Any]] = [
        chat(PROMPT),
        chat(PROMPT, stream=True),
        chat(PROMPT, temperature=0),
        chat(PROMPT, temperature=0),
        chat(PROMPT, max_tokens=501),
        chat(PROMPT) | {"temperature": PROMPT},
        chat(PROMPT) | {"messages": PROMPT},
        chat(PROMPT, model=f"gpt-{PROMPT}"[:20]),
        {"model": "alpha", "input": PROMPT, "messages": [PROMPT]},
    ]
    async with managed.http(None) as http:
        for credential in (tenant.key, spare["key"], personal, token, foreign, *bad_tokens):
            headers = {"authorization": f"Bearer {credential}"}
            answers = await asyncio.gather(*(http.post(CHAT, json=body, headers=headers) for body in bodies))
            texts = [answer.text for answer in answers] + [str(answer.headers) for answer in answers]
            assert not any(credential in text for text in texts)
        json_type = {"content-type": "application/json", "x-api-key": tenant.key}
        await http.post(CHAT, content=f'{{"model": "alpha", "{PROMPT}'.encode(), headers=json_type)
        await http.post(f"{CHAT}?key={tenant.key}&q={PROMPT}", json=bodies[0], headers=json_type)
    async with tenant.http() as http:
        await began(http, 2, user=PROMPT)
    managed.revoke(tenant.name, spare["id"])
    with managed.admin_of(managed.pods[0], personal) as own:
        assert own.get("/keys").status_code in (200, 404)
        own.put("/limits/none", json={"scope": PROMPT})
    with managed.admin_of(managed.pods[0], tenant.key) as wrong:
        assert wrong.get("/ledger").status_code == 401
    async with httpx.AsyncClient(base_url=managed.stack.url, trust_env=False) as http:
        await http.get("/v1/models", headers={"x-request-id": f"last-of-{tenant.name}"})
    await tenant.balanced()

    logs, volumes = managed.stack.folder / "logs", managed.stack.folder / "volumes"

    async def written() -> bool:
        return f"last-of-{tenant.name}" in (logs / "access.log").read_text()

    await eventually(written, "the access log is complete")
    secrets = {
        "prompt": PROMPT,
        "foreign key": foreign,
        "map's value": MAP_VALUE,
        "personal key": personal[-40:],
        "pepper": managed.environ["PENSTOCK_KEY_PEPPER"],
        "admin token": managed.environ["PENSTOCK_ADMIN_TOKEN"],
        **{f"key {i}": key[-40:] for i, key in enumerate((tenant.key, spare["key"]))},
        **{f"token {i}": text[-40:] for i, text in enumerate((token, *bad_tokens))},
    }
    if "PENSTOCK_STORE_PASSWORD" in managed.environ:
        secrets["password"] = managed.environ["PENSTOCK_STORE_PASSWORD"]
    files = {path.name: path.read_bytes() for path in (*_files(logs), *_files(volumes))}
    assert {"access.log", "body-router.log", f"{managed.pods[0]}.log"} <= set(files)
    assert any(tenant.name.encode() in data for name, data in files.items() if not name.endswith(".log")), "the store"
    levels = [b'"DEBUG"' in files[f"{pod}.log"] for pod in managed.pods]
    assert levels == [managed.pods == ["api-management"]] * len(levels)
    found = [
        (name, what) for name, data in files.items() for what, secret in secrets.items() if secret.encode() in data
    ]
    assert found == []


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
