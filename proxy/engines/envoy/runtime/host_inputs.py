"""Reads what Envoy's configuration needs from the host: certificates and the system's CA file."""

import os
import ssl

from counterfault.proxy.config.files import read_regular_file
from counterfault.proxy.config.model import Config

_PEM_BYTES = 1 << 20
_STORES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


def certificates(config: Config) -> dict[str, tuple[str, str]]:
    """Return the PEM text of certificate and key, by the name of each listener that has `tls`.

    Raises:
        OSError: A file cannot be read.
    """
    found = {}
    for name, listener in config.sidecar.listeners.items():
        if listener.tls is not None:
            cert = read_regular_file(config.directory / listener.tls.cert, _PEM_BYTES)
            key = read_regular_file(config.directory / listener.tls.key, _PEM_BYTES)
            found[name] = (cert.decode(), key.decode())
    return found


def system_ca() -> str:
    """Return the path of the system's CA file, or Debian's path if no known file is there."""
    own = ssl.get_default_verify_paths().cafile
    return next((path for path in (own, *_STORES) if path and os.path.exists(path)), _STORES[0])
