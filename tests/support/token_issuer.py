"""A token issuer for tests: keys made on the spot, and a real HTTP server on 127.0.0.1 that publishes them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class SigningKey:
    """A private key with an id; RSA for RS and PS algorithms, else P-256."""

    def __init__(self, key_id: str | None, algorithm: str = "RS256", bits: int = 2048) -> None:
        self.id, self.algorithm = key_id, algorithm
        self.private: Any = (
            rsa.generate_private_key(65537, bits)
            if algorithm[:2] in ("RS", "PS")
            else ec.generate_private_key(ec.SECP256R1())
        )

    def jwk(self, **more: Any) -> dict[str, Any]:
        """Return the public half."""
        kind = jwt.get_algorithm_by_name(self.algorithm)
        found: dict[str, Any] = json.loads(kind.to_jwk(self.private.public_key()))
        found.pop("key_ops", None)
        return {**found, "use": "sig", **({"kid": self.id} if self.id else {}), **more}

    def pem(self) -> bytes:
        """Return the public half as PEM."""
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, claims: dict[str, Any], **headers: Any) -> str:
        """Return a token."""
        headers = {**({"kid": self.id} if self.id else {}), **headers}
        return jwt.encode(claims, self.private, self.algorithm, headers)


def encoded(part: Any) -> str:
    """Return a part of a token."""
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """What the server answers; tests change it."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, tuple[int, bytes]] = {}
        """By path."""
        self.asked: list[str] = []
        """Method and path of each request."""
        self.authorizations: list[str] = []
        self.gate: asyncio.Event | None = None
        """While it is there and not set, answers wait."""

    def publish(self, *keys: SigningKey | dict[str, Any]) -> None:
        """Put keys into the key set."""
        found = [key.jwk() if isinstance(key, SigningKey) else key for key in keys]
        self.answers["/keys"] = (200, json.dumps({"keys": found}).encode())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ")
            self.asked.append(f"{method} {path}")
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            self.authorizations.append(fields.get("authorization", ""))
            if self.gate is not None:
                await self.gate.wait()
            status, body = self.answers.get(path, (404, b"{}"))
            extra = f"location: {self.url}/keys\r\n" if status == 302 else ""
            text = f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\n{extra}connection: close\r\n\r\n"
            writer.write(text.encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def token_issuer() -> AsyncIterator[Issuer]:
    """Run an issuer on a free port."""
    issuer = Issuer()
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield issuer
    finally:
        if issuer.gate is not None:
            issuer.gate.set()
        server.close()
        await server.wait_closed()
