"""A real Kubernetes API server with its etcd, on free ports of 127.0.0.1, with every CRD that the project uses.

There are no controllers, no scheduler and no nodes: objects are checked and stored, and nothing happens to them
unless a test does it.
"""

import contextlib
import json
import secrets
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.engine import definitions
from tests.support.engine.build import require
from tests.support.engine.definitions import CRDS
from tests.support.engine.processes import start
from tests.support.envoy import free_port


class _Patient(httpx.HTTPTransport):
    """Asks again while the API server wants fewer requests, as client-go does.

    It answers so for a second while the storage of a new custom resource is made ready.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + 30
        while True:
            answer = super().handle_request(request)
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS or time.monotonic() > deadline:
                return answer
            answer.close()
            time.sleep(0.1)


@dataclass(frozen=True)
class ApiServer:
    """A running API server.

    Attributes:
        url: `https://127.0.0.1:<port>`.
        token: of a user in `system:masters`, for whom everything is allowed.
        ca: file with the certificate that signed the server's.
    """

    url: str
    token: str
    ca: Path

    def client(self, token: str | None = None) -> httpx.Client:
        """Return an HTTP client that speaks for the administrator, or for the owner of `token`."""
        return httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {token or self.token}"},
            transport=_Patient(verify=ssl.create_default_context(cafile=str(self.ca)), trust_env=False),
            timeout=30,
        )

    def kubeconfig(self, path: Path, token: str | None = None, namespace: str = "default") -> Path:
        """Write a kubeconfig for the administrator, or for the owner of `token`, and return `path`."""
        context = {"cluster": "test", "user": "test", "namespace": namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": "test", "user": {"token": token or self.token}}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return path

    def service_account_token(self, namespace: str, name: str, seconds: int = 3600) -> str:
        """Return a token of a ServiceAccount that exists, as a pod of it would have mounted."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        with self.client() as client:
            path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
            answer = client.post(path, json={**body, "spec": {"expirationSeconds": seconds}})
        return str(answer.raise_for_status().json()["status"]["token"])

    def apply(self, manifest: Mapping[str, Any], manager: str = "test") -> dict[str, Any]:
        """Create or change an object by server-side apply and return it.

        Raises:
            httpx.HTTPStatusError: the API server refuses it; `.response.json()["message"]` says why.
        """
        with self.client() as client:
            path = object_path(client, manifest)
            return patch(client, path, manifest, {"fieldManager": manager, "force": "true"})

    def set_status(self, manifest: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the status of an object that exists, as its controller would."""
        with self.client() as client:
            path = f"{object_path(client, manifest)}/status"
            body = {key: manifest[key] for key in ("apiVersion", "kind")}
            body["metadata"] = {"name": manifest["metadata"]["name"]}
            return patch(client, path, {**body, "status": dict(status)}, {"fieldManager": "status", "force": "true"})


def object_path(client: httpx.Client, manifest: Mapping[str, Any]) -> str:
    """Return the URL path of an object; its resource name comes from the API server's discovery."""
    version, kind = manifest["apiVersion"], manifest["kind"]
    root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    found = client.get(root)
    served = found.json()["resources"] if found.status_code == 200 else []
    resource = next((r for r in served if r["kind"] == kind and "/" not in r["name"]), None)
    if resource is None:
        raise LookupError(f'no matches for kind "{kind}" in version "{version}"')
    name = manifest["metadata"]["name"]
    if not resource["namespaced"]:
        return f"{root}/{resource['name']}/{name}"
    return f"{root}/namespaces/{manifest['metadata'].get('namespace', 'default')}/{resource['name']}/{name}"


def patch(client: httpx.Client, path: str, manifest: Mapping[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
    """Send a server-side apply. YAML is a superset of JSON, which is what is sent."""
    answer = client.patch(
        path,
        params={**query, "fieldValidation": "Strict"},
        content=json.dumps(manifest),
        headers={"content-type": "application/apply-patch+yaml"},
    )
    answered: dict[str, Any] = answer.raise_for_status().json()
    return answered


@contextlib.contextmanager
def running(folder: Path, *, install: Callable[[httpx.Client], None] = definitions.install) -> Iterator[ApiServer]:
    """Run etcd and an API server until the block ends; skip the test where they cannot be built.

    Args:
        folder: an empty folder for data, keys and logs.
        install: installs custom resource definitions.

    Raises:
        AssertionError: it did not become ready; shows the end of the logs.
    """
    etcd, apiserver = require("etcd"), require("kube-apiserver")
    with contextlib.ExitStack() as processes:
        store = processes.enter_context(_etcd(etcd, folder))
        server, process = processes.enter_context(_apiserver(apiserver, folder, store))
        with server.client() as client:
            _wait(lambda: client.get("/readyz").status_code == 200, process, folder / "apiserver.log")
            # Made by the API server itself shortly after it is ready.
            default = "/api/v1/namespaces/default"
            _wait(lambda: client.get(default).status_code == 200, process, folder / "apiserver.log")
            if CRDS.is_dir():
                install(client)
        yield server


@contextlib.contextmanager
def restartable(folder: Path) -> Iterator[tuple[ApiServer, Callable[[], contextlib.AbstractContextManager[None]]]]:
    """Run as `running` does, with a function that stops the API server for the time of a `with` block.

    It comes back on the same port, with the same keys and data.
    """
    etcd, apiserver = require("etcd"), require("kube-apiserver")
    log = folder / "apiserver.log"
    with contextlib.ExitStack() as processes:
        store = processes.enter_context(_etcd(etcd, folder))
        server, process = processes.enter_context(_apiserver(apiserver, folder, store))
        client = processes.enter_context(server.client())

        @contextlib.contextmanager
        def outage() -> Iterator[None]:
            nonlocal process
            process.kill()  # asked to end it would wait for its watches
            process.wait(30)
            yield
            process = processes.enter_context(start(list(map(str, _argv(process))), log))
            _wait(lambda: client.get("/readyz").status_code == 200, process, log)

        _wait(lambda: client.get("/readyz").status_code == 200, process, log)
        if CRDS.is_dir():
            definitions.install(client)
        yield server, outage


def _argv(process: subprocess.Popen[bytes]) -> Sequence[object]:
    """Return the command that a process was started with."""
    assert isinstance(process.args, list)
    return process.args


@contextlib.contextmanager
def _etcd(binary: Path, folder: Path) -> Iterator[str]:
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    command = [str(binary), "--unsafe-no-fsync", "--data-dir", str(folder / "etcd"), "--log-level", "warn"]
    command += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
    command += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
    with start(command, folder / "etcd.log"):
        yield client


@contextlib.contextmanager
def _apiserver(binary: Path, folder: Path, store: str) -> Iterator[tuple[ApiServer, subprocess.Popen[bytes]]]:
    port, token = free_port(), secrets.token_hex(16)
    key, tokens, certificates = folder / "service-accounts.key", folder / "tokens.csv", folder / "certificates"
    key.touch(mode=0o600)
    key.write_bytes(_private_key())
    tokens.touch(mode=0o600)
    tokens.write_text(f'{token},admin,admin,"system:masters"\n')
    command = [str(binary), "--etcd-servers", store, "--bind-address=127.0.0.1", f"--secure-port={port}"]
    command += [f"--cert-dir={certificates}", f"--token-auth-file={tokens}", "--authorization-mode=RBAC"]
    command += [f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"]
    command += ["--service-account-issuer=https://localhost", "--service-cluster-ip-range=10.96.0.0/16"]
    # Its controller, which makes a default account in every namespace, does not run here.
    command += ["--disable-admission-plugins=ServiceAccount"]
    command += ["--allow-privileged=true"]  # as GKE's: installers of drivers need it
    with start(command, folder / "apiserver.log") as process:
        ca = certificates / "apiserver.crt"
        _wait(ca.exists, process, folder / "apiserver.log")
        yield ApiServer(f"https://127.0.0.1:{port}", token, ca), process


def _private_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)


def _wait(met: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.TransportError, KeyError):
            if met():
                return
        dead = process.poll() is not None
        if dead or time.monotonic() > deadline:
            state = f"ended with code {process.returncode}" if dead else f"was not ready within {seconds:.0f} s"
            raise AssertionError(f"the API server {state}; the end of its log:\n{log.read_text()[-3000:]}")
        time.sleep(0.05)


def main() -> None:
    """Run one by hand until Ctrl-C: `python -m tests.support.engine.apiserver <empty folder>`."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with running(folder) as server, contextlib.suppress(KeyboardInterrupt):
        sys.stderr.write(f"KUBECONFIG={server.kubeconfig(folder / 'kubeconfig')}\n")
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
