"""The certificate authority (CA) that signs for hosts whose TLS a forward listener intercepts."""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from counterfault.proxy.config.files import reason_of
from counterfault.proxy.config.sidecar import Sidecar

log = logging.getLogger("counterfault")

_DIRECTORY = "ca"
_SECRET_FILE, _PUBLIC_FILE = "counterfault-ca.pem", "counterfault-ca-cert.pem"
_NAME = "counterfault"
_KEY_BITS = 2048
_VALID_FOR = timedelta(days=3650)
# The certificate is valid from two days ago, so that clients whose clocks are behind accept it.
_CLOCK_SKEW = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Signer:
    """A CA that can sign.

    Attributes:
        key: The CA's private key.
        chain: The CA's certificate, then the certificates of the CAs above it.
    """

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]


def parse_signer(pem: bytes) -> Signer:
    """Return the CA in the content of a PEM file with a private key and a certificate chain.

    Raises:
        ValueError: The key or the certificate is missing, unfit, or they do not belong together.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise ValueError("must have a private key without a password") from e
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError("must have an RSA or EC key")
    try:
        chain = tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as e:
        raise ValueError("must have a certificate") from e
    if not _is_ca(chain[0]):
        raise ValueError("must have the certificate of an authority (CA:TRUE) first")
    if chain[0].public_key() != key.public_key():
        raise ValueError("must have a key and a certificate that belong together")
    return Signer(key, chain)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return constraints.value.ca


def ensure_ca(directory: Path) -> Path:
    """Return the PEM file of the sidecar's own CA, and make the CA if there is none yet.

    The directory also gets a file with the certificate alone, for clients to trust.

    Raises:
        OSError: The directory cannot be used.
        ValueError: The file that is there does not hold a CA.
    """
    secret, public = directory / _SECRET_FILE, directory / _PUBLIC_FILE
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = serialization.Encoding.PEM
    if not secret.exists():
        key, certificate = _create_ca()
        form, plain = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        _write_once(secret, key.private_bytes(pem, form, plain) + certificate.public_bytes(pem))
    certificate = parse_signer(secret.read_bytes()).chain[0]
    if not public.exists():
        _write_once(public, certificate.public_bytes(pem))
    return secret


def _create_ca() -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    """Return a new key and its self-signed certificate, which may sign server certificates only."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    common_name = x509.NameAttribute(NameOID.COMMON_NAME, _NAME)
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, _NAME)
    name = x509.Name([common_name, organization])
    begin = datetime.now(UTC) - _CLOCK_SKEW
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(name)
        .issuer_name(name)
        .not_valid_before(begin)
        .not_valid_after(begin + _VALID_FOR)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _write_once(path: Path, content: bytes) -> None:
    """Write a whole file, or nothing; a file that another process has put there meanwhile stays."""
    beside = path.with_suffix(f".{os.getpid()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        with suppress(FileExistsError):
            path.hardlink_to(beside)
    finally:
        beside.unlink()


class CertificateAuthority:
    """Finds the PEM file that signs for forward listeners, and logs whenever the finding changes.

    The file is `forward_ca` of sidecar.yaml, else one of the sidecar's own under `state_dir`.
    """

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir.absolute() / _DIRECTORY
        self._last_logged = ""

    def pem_file(self, directory: Path, sidecar: Sidecar) -> Path | None:
        """Return the CA's PEM file; None if no listener needs a CA, or none can be made.

        Args:
            directory: The configuration directory, to which `forward_ca` is relative.
            sidecar: The model of sidecar.yaml.
        """
        if not any(listener.forward for listener in sidecar.listeners.values()):
            return None
        if sidecar.forward_ca is not None:
            return directory.absolute() / sidecar.forward_ca
        try:
            found = ensure_ca(self._directory)
        except (OSError, ValueError) as e:
            reason = reason_of(e) if isinstance(e, OSError) else str(e)
            self._log_change(
                logging.ERROR,
                f"no authority in {self._directory}, nothing is intercepted: {reason}",
            )
            return None
        self._log_change(logging.INFO, f"applications must trust {self._directory / _PUBLIC_FILE}")
        return found

    def _log_change(self, level: int, text: str) -> None:
        if text != self._last_logged:
            self._last_logged = text
            log.log(level, "%s", text)
