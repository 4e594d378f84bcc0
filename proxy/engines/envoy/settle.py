"""What Envoy's configuration needs from the machine: certificates, authorities, states of runs."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.config import Config
from proxy.files import contents
from proxy.guard import State

_PEM_BYTES = 1 << 20
_STORES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


@dataclass(frozen=True, slots=True)
class Status:
    """A run under way."""

    state: State
    epoch: str

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> "Status":
        return cls(State(run["state"]), run["epoch"])


def certificates(config: Config) -> dict[str, tuple[str, str]]:
    """Each listener's certificate and key. Raises OSError."""
    found = {}
    for name, listener in config.sidecar.listeners.items():
        if listener.tls is not None:
            cert = contents(config.directory / listener.tls.cert, _PEM_BYTES)
            key = contents(config.directory / listener.tls.key, _PEM_BYTES)
            found[name] = (cert.decode(), key.decode())
    return found


def system_ca() -> str:
    """The system's store of authorities."""
    own = ssl.get_default_verify_paths().cafile
    return next((path for path in (own, *_STORES) if path and os.path.exists(path)), _STORES[0])
