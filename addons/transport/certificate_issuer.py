"""Certificates for the hosts whose TLS a forward listener intercepts, signed by our authority."""

import logging
import time
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from cryptography.x509 import DNSName, GeneralName, IPAddress
from mitmproxy.certs import dummy_cert
from OpenSSL import SSL

from counterfault.addons.transport.tls import server_context
from counterfault.proxy.config.certificate_authority import parse_signer

log = logging.getLogger("counterfault")

_HOSTS = 256
_DAY = 86400


class Issuer:
    """Server contexts by host; a certificate is used for a day, it is good for half a year."""

    def __init__(self, pem: bytes) -> None:
        self.pem = pem
        self._signer = parse_signer(pem)
        self._kept = lru_cache(_HOSTS)(self._made)

    def context(self, host: str) -> SSL.Context:
        return self._kept(host.lower(), int(time.time() // _DAY))

    def _made(self, host: str, _: int) -> SSL.Context:
        key, (own, *others) = self._signer.key, self._signer.chain
        name = _name(host)
        certificate = dummy_cert(key, own, str(name.value), [name])  # type: ignore[arg-type]
        context = server_context()
        context.use_certificate(certificate.to_cryptography())
        for link in (own, *others):
            context.add_extra_chain_cert(link)
        context.use_privatekey(key)
        return context


def issuer_of(file: str | None, before: Issuer | None) -> Issuer | None:
    """The issuer of that file, the one before if it is the same; None if it cannot be used."""
    if file is None:
        return None
    try:
        pem = Path(file).read_bytes()
        return before if before is not None and before.pem == pem else Issuer(pem)
    except (OSError, ValueError) as e:
        log.error("%s: %s; nothing is intercepted", file, e)
        return None


def _name(host: str) -> GeneralName:
    try:
        return IPAddress(ip_address(host))
    except ValueError:
        return DNSName(host.encode("idna").decode())
