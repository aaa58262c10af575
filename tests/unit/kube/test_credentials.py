import asyncio
import base64
import datetime
import ipaddress
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.extproc.tls import CLOCK_SKEW
from services.kube.credentials import Credentials, CredentialsError, from_kubeconfig, in_cluster
from tests.unit.kube.fake import AUTHORITY, FakeApi, Listing, Watching, fake_api, item
from tests.unit.kube.test_collection import PATH, copying

TOKEN = "very-secret-token"


def pod(folder: Path) -> Path:
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "ca.crt").write_text(AUTHORITY)
    return folder


@pytest.mark.parametrize(
    ("host", "server"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_in_a_pod(tmp_path: Path, host: str, server: str) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
    found = in_cluster(pod(tmp_path), environ)
    assert found == Credentials(server, tmp_path / "token", tmp_path / "ca.crt")


def test_outside_of_a_pod(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="automountServiceAccountToken"):
        in_cluster(tmp_path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"})
    with pytest.raises(CredentialsError, match="KUBERNETES_SERVICE_HOST"):
        in_cluster(pod(tmp_path), {})


async def test_a_token_that_kubelet_replaced_is_used_from_the_next_request_on(api: FakeApi, tmp_path: Path) -> None:
    pod(tmp_path)
    api.script(PATH, Listing([]), Watching([], "cut"))
    credentials = Credentials(api.url, tmp_path / "token", tmp_path / "ca.crt")
    async with copying(credentials, backoff_s=(0.2, 0.2)) as copy:
        await copy.until(lambda: copy.reasons, "the watch was cut")
        (tmp_path / "new").write_text("another")
        os.replace(tmp_path / "new", tmp_path / "token")
        await copy.until(lambda: len(api.asked) == 3, "watches again")
    assert [asked.token for asked in api.asked] == [f"Bearer {TOKEN}"] * 2 + ["Bearer another"]


@pytest.mark.parametrize("file", ["token", "ca.crt"])
async def test_files_that_are_away_for_a_moment_are_waited_for(
    api: FakeApi, tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    pod(tmp_path)
    (tmp_path / file).rename(tmp_path / "away")
    credentials = Credentials(api.url, tmp_path / "token", tmp_path / "ca.crt")
    async with copying(credentials) as copy:
        await copy.until(lambda: copy.reasons, "an attempt")
        assert not copy.of.synced
        (tmp_path / "away").rename(tmp_path / file)
        await copy.has()
    assert file in str(vars(caplog.records[0])["error"])


async def test_a_broken_authority_is_named(tmp_path: Path) -> None:
    pod(tmp_path)
    (tmp_path / "ca.crt").write_text("nonsense")
    with pytest.raises(CredentialsError, match=r"ca\.crt"):
        Credentials("https://x", "t", tmp_path / "ca.crt").connect()
    await asyncio.sleep(0)


def kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://k", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    (folder / "config").write_text(yaml.safe_dump(document))
    return folder / "config"


def test_kubeconfigs(tmp_path: Path) -> None:
    data = {"certificate-authority-data": base64.b64encode(AUTHORITY.encode()).decode()}
    assert from_kubeconfig(kubeconfig(tmp_path, data, {"token": TOKEN})) == Credentials("https://k", TOKEN, AUTHORITY)
    files = kubeconfig(tmp_path, {"certificate-authority": "ca.crt"}, {"tokenFile": "token"})
    assert from_kubeconfig(files) == Credentials("https://k", tmp_path / "token", tmp_path / "ca.crt")


def test_kubeconfigs_that_cannot_be_used_do_not_show_their_token(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="No such file"):
        from_kubeconfig(tmp_path / "none")
    with pytest.raises(CredentialsError, match=r"user\.token"):
        from_kubeconfig(kubeconfig(tmp_path, {"certificate-authority": "a"}, {"exec": {}}))
    with pytest.raises(CredentialsError, match=r"certificate-authority"):
        from_kubeconfig(kubeconfig(tmp_path, {}, {"token": TOKEN}))
    for text in (f"users: [token: {TOKEN}", f"{{token: {TOKEN}}}", "[]", ""):
        (tmp_path / "config").write_text(text)
        with pytest.raises(CredentialsError, match="expected a current context") as caught:
            from_kubeconfig(tmp_path / "config")
        assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(Credentials("https://k", TOKEN, AUTHORITY))


async def test_an_authority_without_key_identifiers_is_enough(tmp_path: Path) -> None:
    """Authorities of many clusters are minimal; Python 3.13 refuses them by default."""
    authority, key, certificate = minimal_chain()
    (tmp_path / "server.pem").write_bytes(key + certificate)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(tmp_path / "server.pem")
    async with fake_api(server_side) as api:
        api.script(PATH, Listing([item("a", value=1)]))
        async with copying(Credentials(api.url, "t", authority.decode())) as copy:
            await copy.has(a=1)
        async with copying(Credentials(api.url, "t", AUTHORITY)) as copy:
            await copy.until(lambda: copy.reasons, "another authority is refused")
            assert not copy.of.synced


def minimal_chain() -> tuple[bytes, bytes, bytes]:
    """Return an authority, and key and certificate of a server, with as few extensions as there may be (PEM)."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("kubernetes", "apiserver")]
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = []
    for number, extension in ((0, x509.BasicConstraints(ca=True, path_length=None)), (1, address)):
        builder = x509.CertificateBuilder(names[0], names[number], keys[number].public_key(), number + 1)
        builder = builder.not_valid_before(now - CLOCK_SKEW).not_valid_after(now + CLOCK_SKEW)
        signed = builder.add_extension(extension, critical=number == 0).sign(keys[0], hashes.SHA256())
        made.append(signed.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    key = keys[1].private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return made[0], key, made[1]
