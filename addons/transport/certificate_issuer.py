"""Issues certificates for the hosts whose TLS a forward listener intercepts."""

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


class CertificateIssuer:
    """Makes TLS server contexts, one for each host, with certificates signed by our authority.

    A context is used for one day, and its certificate is valid for half a year.
    """

    def __init__(self, pem: bytes) -> None:
        """`pem` holds the authority's certificates and key. Raises ValueError if unusable."""
        self.pem = pem
        self._signer = parse_signer(pem)
        self._contexts = lru_cache(_HOSTS)(self._make_context)

    def context(self, host: str) -> SSL.Context:
        """Return a server context whose certificate is for this host."""
        return self._contexts(host.lower(), int(time.time() // _DAY))

    def _make_context(self, host: str, _: int) -> SSL.Context:
        key, (own, *others) = self._signer.key, self._signer.chain
        name = _name(host)
        certificate = dummy_cert(key, own, str(name.value), [name])  # type: ignore[arg-type]
        context = server_context()
        context.use_certificate(certificate.to_cryptography())
        for each in (own, *others):
            context.add_extra_chain_cert(each)
        context.use_privatekey(key)
        return context


def load_issuer(file: str | None, before: CertificateIssuer | None) -> CertificateIssuer | None:
    """Return an issuer with the authority in `file`, or `before` if the file has not changed.

    None without a file, and where it cannot be used; then the log says why.
    """
    if file is None:
        return None
    try:
        pem = Path(file).read_bytes()
        return before if before is not None and before.pem == pem else CertificateIssuer(pem)
    except (OSError, ValueError) as e:
        log.error("%s: %s; nothing is intercepted", file, e)
        return None


def _name(host: str) -> GeneralName:
    try:
        return IPAddress(ip_address(host))
    except ValueError:
        return DNSName(host.encode("idna").decode())
