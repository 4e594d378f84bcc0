"""The certificate authority that signs for hosts whose TLS a forward listener intercepts."""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import Certificate, load_pem_x509_certificates
from mitmproxy.certs import Cert, create_ca

from counterfault.proxy.config.files import why
from counterfault.proxy.config.sidecar import Sidecar

log = logging.getLogger("counterfault")

_DIRECTORY = "ca"
_SECRET, _PUBLIC = "counterfault-ca.pem", "counterfault-ca-cert.pem"
_KEY_BITS = 2048


@dataclass(frozen=True, slots=True)
class Signer:
    """An authority's key and its certificate, followed by those that vouch for it."""

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    chain: tuple[Certificate, ...]


def signer(pem: bytes) -> Signer:
    """The authority in a PEM file; raises ValueError."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise ValueError("must have a private key without a password") from e
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError("must have an RSA or EC key")
    try:
        chain = tuple(load_pem_x509_certificates(pem))
    except ValueError as e:
        raise ValueError("must have a certificate") from e
    if not Cert(chain[0]).is_ca:
        raise ValueError("must have the certificate of an authority (CA:TRUE) first")
    if chain[0].public_key() != key.public_key():
        raise ValueError("must have a key and a certificate that belong together")
    return Signer(key, chain)


def made(directory: Path) -> Path:
    """The file of our own authority, made when there is none yet; raises OSError, ValueError."""
    secret, public = directory / _SECRET, directory / _PUBLIC
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not secret.exists():
        key, certificate = create_ca("counterfault", "counterfault", _KEY_BITS)
        plain = serialization.NoEncryption()
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
        _create(secret, key.private_bytes(pem, form, plain) + certificate.public_bytes(pem))
    certificate = signer(secret.read_bytes()).chain[0]
    if not public.exists():
        _create(public, certificate.public_bytes(serialization.Encoding.PEM))
    return secret


def _create(path: Path, content: bytes) -> None:
    """All of a file or nothing of it; what another process has put there meanwhile stays."""
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


class Authority:
    """Says which file signs, and logs it whenever that changes."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir.absolute() / _DIRECTORY
        self._said = ""

    def file(self, directory: Path, sidecar: Sidecar) -> Path | None:
        """The PEM file of the authority; None if none is needed or to be had."""
        if not any(listener.forward for listener in sidecar.listeners.values()):
            return None
        if sidecar.forward_ca is not None:
            return directory.absolute() / sidecar.forward_ca
        try:
            found = made(self._directory)
        except (OSError, ValueError) as e:
            reason = why(e) if isinstance(e, OSError) else str(e)
            self._say(
                logging.ERROR,
                f"no authority in {self._directory}, nothing is intercepted: {reason}",
            )
            return None
        self._say(logging.INFO, f"applications must trust {self._directory / _PUBLIC}")
        return found

    def _say(self, level: int, said: str) -> None:
        if said != self._said:
            self._said = said
            log.log(level, "%s", said)
