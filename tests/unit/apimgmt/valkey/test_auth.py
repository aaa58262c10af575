"""Who we are, and whom we talk to: IAM tokens from a metadata server, TLS."""

import asyncio
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.apimgmt.settings import ValkeyStore as Settings
from services.apimgmt.store.api import StoreError
from services.apimgmt.store.valkey import ValkeyStore, auth, client
from services.extproc.tls import self_signed
from tests.support.valkey import Server, server
from tests.unit.apimgmt.valkey.calls import reservation, settlement, window


class Metadata(http.server.ThreadingHTTPServer):
    """A metadata server that hands out `token`."""

    token, lifetime, status = "token-1", 3600.0, 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked = 0

    @property
    def environ(self) -> dict[str, str]:
        return {"GCE_METADATA_HOST": f"127.0.0.1:{self.server_port}"}


class Answer(http.server.BaseHTTPRequestHandler):
    """The one path there is."""

    server: Metadata

    def do_GET(self) -> None:
        self.server.asked += 1
        right = self.path == auth.TOKEN_PATH and self.headers["Metadata-Flavor"] == "Google"
        answer = {"access_token": self.server.token, "expires_in": self.server.lifetime, "token_type": "Bearer"}
        body = json.dumps(answer).encode() if right else b"{}"
        self.send_response(self.server.status if right else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    running = Metadata()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    with server(tmp_path / "valkey", password="token-1") as running:
        yield running


def iam(own: Server, metadata: Metadata) -> ValkeyStore:
    return ValkeyStore(Settings(kind="valkey", auth="iam"), {**own.environ, **metadata.environ})


def rotate(own: Server, token: str) -> None:
    """The server takes this token only; connections that are authenticated stay so."""
    own.command("CONFIG", "SET", "requirepass", token)
    own.password = token


async def test_a_token_is_the_password(own: Server, metadata: Metadata) -> None:
    store = iam(own, metadata)
    await store.open()
    made = reservation([window("a", 6, 10)])
    await store.reserve(made)
    await store.settle(settlement(made, [2]))
    assert metadata.asked == 1
    await store.close()


async def test_new_connections_take_a_fresh_token(own: Server, metadata: Metadata) -> None:
    """The token in hand is refused: another one is fetched."""
    store = iam(own, metadata)
    await store.open()
    metadata.token = "token-2"
    rotate(own, "token-2")
    own.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await store.totals([window("a", 0, 0)]) == [0]
    assert metadata.asked == 2
    await store.close()


async def test_open_connections_are_renewed_before_the_token_ends(
    own: Server, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth.IamToken, "remaining", lambda self: 0.2 if metadata.asked < 2 else 1000.0)
    store = iam(own, metadata)
    await store.open()
    before = await calls_of_auth(store)
    metadata.token = "token-2"
    rotate(own, "token-2")  # authenticates once for itself
    deadline = time.monotonic() + 10
    while await calls_of_auth(store) < before + 2:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert metadata.asked == 2
    await store.close()


async def calls_of_auth(store: ValkeyStore) -> int:
    """How often AUTH was called, asked over the store's own connection."""
    reply = await store._client.run("", ("INFO", "commandstats"))  # type: ignore[attr-defined]
    return int(reply.decode().split("cmdstat_auth:calls=")[1].split(",")[0])


async def test_a_token_is_kept_until_it_is_old(metadata: Metadata) -> None:
    token = auth.IamToken(metadata.environ)
    assert [await token.get(), await token.get()] == ["token-1", "token-1"]
    assert metadata.asked == 1
    assert 3600 - auth.RENEW_BEFORE_S - 10 < token.remaining() <= 3600 - auth.RENEW_BEFORE_S
    metadata.lifetime, metadata.token = 0.0, "token-2"
    token.forget()
    assert await token.get() == "token-2"
    metadata.token = "token-3"
    assert await token.get() == "token-3", "the second one lived for no time"


@pytest.mark.parametrize("status", [403, 500, 200])
async def test_no_token_to_be_had(
    own: Server, metadata: Metadata, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 0.3)
    metadata.status = status
    if status == 200:
        monkeypatch.setattr(auth, "HEADERS", {})
    store = iam(own, metadata)
    with pytest.raises(StoreError, match=f"metadata server answers {status if status != 200 else 404}"):
        await store.open()
    await store.close()


async def test_the_metadata_server_is_not_there(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 0.3)
    environ = {**own.environ, "GCE_METADATA_HOST": "127.0.0.1:1"}
    store = ValkeyStore(Settings(kind="valkey", auth="iam"), environ)
    with pytest.raises(StoreError, match="metadata server cannot be reached"):
        await store.open()
    await store.close()


async def test_a_refused_token_is_told_without_it(
    own: Server, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 0.3)
    metadata.token = "not-the-secret"
    store = iam(own, metadata)
    with pytest.raises(StoreError, match="WRONGPASS") as raised:
        await store.open()
    assert "not-the-secret" not in str(raised.value)
    await store.close()


async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 0.3)
    with server(tmp_path / "valkey", tls=True) as running:
        store = running.store()
        monkeypatch.setattr(client, "PATIENCE_S", 4.0)
        await store.open()
        made = reservation([window("a", 6, 10)])
        await store.reserve(made)
        await store.settle(settlement(made, [2]))
        assert await store.totals(made.charges) == [2]
        await store.close()

        monkeypatch.setattr(client, "PATIENCE_S", 0.3)
        _, foreign = self_signed("valkey", "127.0.0.1")
        (tmp_path / "foreign.pem").write_bytes(foreign)
        for ca_file in (str(tmp_path / "foreign.pem"), None):
            wrong = ValkeyStore(running.settings.model_copy(update={"ca_file": ca_file}), running.environ)
            with pytest.raises(StoreError, match=r"certificate is not trusted .*caFile"):
                await wrong.open()
            await wrong.close()

        plain = ValkeyStore(running.settings.model_copy(update={"tls": False}), running.environ)
        with pytest.raises(StoreError, match="tried for"):
            await plain.open()
        await plain.close()
        bad = running.settings.model_copy(update={"ca_file": str(tmp_path / "missing.pem")})
        with pytest.raises(StoreError, match=r"missing\.pem: expected a readable file"):
            ValkeyStore(bad, running.environ)
