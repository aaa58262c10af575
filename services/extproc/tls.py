"""TLS of the ext_proc port: a certificate made at start, or one from files.

Gateways encrypt the way to a callout but do not verify its certificate (Google Cloud load balancers never check
backend certificates), so a certificate made in memory protects as well as any. It is made anew before it expires; one
from files is read again when it is replaced, as cert-manager and Secret mounts do.
"""

import asyncio
import datetime
import ipaddress
import logging
from collections.abc import Callable
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import Gauge

from services.extproc.files import POLL_S, file_stamp

VALIDITY = datetime.timedelta(days=365)
CLOCK_SKEW = datetime.timedelta(hours=1)

EXPIRES = Gauge("penstock_extproc_certificate_expires_timestamp_seconds", "End of the certificate in use (Unix time)")

logger = logging.getLogger("penstock.extproc")


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


class Certificates:
    """The certificate in use. New handshakes get a new one; open connections stay."""

    def __init__(self, make: Callable[[], tuple[bytes, bytes]], folder: Path | None = None) -> None:
        """`make` returns key and certificate (PEM); `folder` is where it has them from, if from files."""
        self._make, self._folder = make, folder
        self._stamp = self._look()
        self._pair = make()
        self._told = ""
        self._show()

    @classmethod
    def of(cls, mode: str, name: str, address: str, folder: Path | None) -> "Certificates | None":
        """Return what `--tls-mode` asks for; None for `off`. Raises TlsError as `from_files`."""
        if mode == "off":
            return None
        if mode == "self-signed":
            return cls(lambda: self_signed(name, address))
        if folder is None:
            raise TlsError("--tls-mode files: give --tls-dir, the folder with tls.crt and tls.key")
        return cls(lambda: from_files(folder), folder)

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """Key and certificate in use, PEM."""
        return self._pair

    def credentials(self) -> grpc.ServerCredentials:
        """Return gRPC credentials that ask for the certificate at each handshake."""
        current: tuple[bytes, bytes] | None = None

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal current
            if self._pair is current:
                return None
            current = self._pair
            return grpc.ssl_server_certificate_configuration([current])

        first = grpc.ssl_server_certificate_configuration([self._pair])
        return grpc.dynamic_ssl_server_credentials(first, fetch)  # type: ignore[arg-type]  # None: no other one

    async def watch(self) -> None:
        """Look after the certificate until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            self.look()

    def look(self) -> None:
        """Take a replaced certificate up, and make a self-signed one anew when half of its time is over."""
        stamp = self._look()
        due = self._folder is None and datetime.datetime.now(datetime.UTC) > self._expires - VALIDITY / 2
        if stamp == self._stamp and not due:
            return
        self._stamp = stamp
        try:
            self._pair = self._make()
        except TlsError as error:
            if str(error) != self._told:
                self._told = str(error)
                logger.error("certificate refused, the last good one stays in use", extra={"error": self._told})
            return
        self._told = ""
        self._show()
        logger.info("certificate replaced", extra={"expires": self._expires.isoformat()})

    def _look(self) -> object:
        return None if self._folder is None else file_stamp([self._folder / "tls.key", self._folder / "tls.crt"])

    def _show(self) -> None:
        self._expires = x509.load_pem_x509_certificate(self._pair[1]).not_valid_after_utc
        EXPIRES.set(self._expires.timestamp())
