"""TLS of the ext_proc port: a certificate made at start, or one from files.

Gateways encrypt the way to a callout but do not verify its certificate (Google Cloud load balancers never check
backend certificates), so a certificate made in memory protects as well as any and needs no rotation.
"""

import datetime
import ipaddress
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALIDITY = datetime.timedelta(days=365)
CLOCK_SKEW = datetime.timedelta(hours=1)


class TlsError(Exception):
    """The certificate or key cannot be used; the text says why and what to do."""


def self_signed(name: str, address: str) -> tuple[bytes, bytes]:
    """Make an EC P-256 key and a certificate for `name`, localhost and `address`; return both as PEM (key, cert).

    The key exists in memory only.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names: list[x509.GeneralName] = [x509.DNSName(name), x509.DNSName("localhost")]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(address)))
    except ValueError:
        names.append(x509.DNSName(address))
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def from_files(folder: Path) -> tuple[bytes, bytes]:
    """Read `tls.key` and `tls.crt` (the names of a Kubernetes TLS Secret) and check that they belong together.

    Raises:
        TlsError: a file is missing, is not PEM, or the two do not match.
    """
    try:
        key_pem, certificate_pem = (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
    except OSError as error:
        raise TlsError(f"--tls-dir: {error.filename}: {error.strerror}; expected tls.crt and tls.key") from None
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except (ValueError, TypeError):
        raise TlsError(f"--tls-dir: {folder}: expected tls.crt and an unencrypted tls.key in PEM") from None
    if key.public_key() != certificate.public_key():
        raise TlsError(f"--tls-dir: {folder}: tls.key is not the key of tls.crt; put the matching pair there")
    return key_pem, certificate_pem


def credentials(mode: str, name: str, address: str, folder: Path | None) -> grpc.ServerCredentials | None:
    """Return gRPC credentials for `--tls-mode`; None for `off`. Raises TlsError as `from_files`."""
    if mode == "off":
        return None
    if mode == "files":
        if folder is None:
            raise TlsError("--tls-mode files: give --tls-dir, the folder with tls.crt and tls.key")
        pair = from_files(folder)
    else:
        pair = self_signed(name, address)
    return grpc.ssl_server_credentials([pair])
