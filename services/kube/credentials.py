"""How to reach the Kubernetes API: from inside a pod, or by a kubeconfig.

Token and certificate authority are read from their files for each connection, since kubelets replace tokens before
they expire (after 80 percent of their life) and clusters replace their authority.
"""

import base64
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and the authority. Source: Kubernetes, "Accessing the API from within a Pod"."""

CONNECT_TIMEOUT_S = 5.0
TIMEOUT_S = 15.0
"""How long one answer, or one piece of it, may take, seconds; watches set their own."""


class CredentialsError(Exception):
    """There is no way to the API server; the text says what was looked for and what to do."""


@dataclass(frozen=True)
class Credentials:
    """One API server and who asks. `token` and `authority` are PEM or text, or the files that hold them."""

    server: str
    """Such as `https://10.0.0.1:443`."""
    token: Path | str = field(repr=False)
    authority: Path | str

    def connect(self) -> httpx2.AsyncClient:
        """Return a client that trusts the authority of now. Raises CredentialsError."""
        try:
            trust = ssl.create_default_context(cadata=_text(self.authority))
        except (OSError, ssl.SSLError, ValueError) as error:
            raise CredentialsError(f"certificate authority {_name(self.authority)}: {error}") from None
        # Python 3.13 asks for extensions (RFC 5280) that the authorities of many clusters lack; other clients do not.
        trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
        timeout = httpx2.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        return httpx2.AsyncClient(
            base_url=self.server, verify=trust, timeout=timeout, trust_env=False, event_hooks={"request": [self._sign]}
        )

    async def _sign(self, request: httpx2.Request) -> None:
        try:
            request.headers["authorization"] = f"Bearer {_text(self.token).strip()}"
        except OSError as error:
            raise CredentialsError(f"token {_name(self.token)}: {error.strerror}") from None


def in_cluster(folder: Path = SERVICE_ACCOUNT, environ: Mapping[str, str] = os.environ) -> Credentials:
    """Return the credentials of the pod's ServiceAccount. Raises CredentialsError outside of a cluster."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (folder / "token").exists():
        raise CredentialsError(
            f"expected a pod with a ServiceAccount's token in {folder} and KUBERNETES_SERVICE_HOST and _PORT; set "
            "automountServiceAccountToken on the pod, or name a --kubeconfig"
        )
    return Credentials(f"https://{f'[{host}]' if ':' in host else host}:{port}", folder / "token", folder / "ca.crt")


def from_kubeconfig(path: Path) -> Credentials:
    """Return the credentials of a kubeconfig's current context: a token or token file, and an authority.

    Raises:
        CredentialsError: the file cannot be read, or uses something else (client certificates, plugins).
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        contexts, clusters, users = (_named(document, kind) for kind in ("contexts", "clusters", "users"))
        context = contexts[document["current-context"]]["context"]
        cluster, user = clusters[context["cluster"]]["cluster"], users[context["user"]]["user"]
        server = str(cluster["server"])
    except OSError as error:
        raise CredentialsError(f"kubeconfig {path}: {error.strerror}") from None
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        what = type(error).__name__  # its text may quote the file, and so a token
        raise CredentialsError(f"kubeconfig {path}: expected a current context, its cluster and user: {what}") from None
    authority: Path | str | None = _file(path, cluster.get("certificate-authority"))
    if cluster.get("certificate-authority-data"):
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode("ascii", "replace")
    token = _file(path, user.get("tokenFile")) or user.get("token")
    if not token or not authority:
        missing = "user.token or user.tokenFile" if not token else "cluster.certificate-authority(-data)"
        raise CredentialsError(f"kubeconfig {path}: expected {missing}; nothing else is supported here")
    return Credentials(server, token, authority)


def _named(document: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return {item["name"]: item for item in document[kind]}


def _file(kubeconfig: Path, value: str | None) -> Path | None:
    return kubeconfig.parent / value if value else None


def _text(source: Path | str) -> str:
    return source.read_text(encoding="ascii") if isinstance(source, Path) else source


def _name(source: Path | str) -> str:
    return str(source) if isinstance(source, Path) else "given in place"
