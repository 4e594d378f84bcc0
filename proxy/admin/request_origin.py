"""Who may talk to the admin port: nothing that a stranger's web page can send."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from counterfault.proxy.values.addresses import is_loopback


def foreign_host(host: str, own: str) -> str | None:
    """What is wrong with a Host header. A rebound DNS name is not ours, wherever it leads."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if name == own.lower() or is_loopback(name):
        return None
    return f"the Host header must name {own} or a loopback address"


def foreign_origin(headers: Mapping[str, str], host: str) -> str | None:
    """What is wrong with where a POST comes from; a browser says it, other clients need not."""
    if headers.get("Sec-Fetch-Site") == "cross-site":
        return "requests from other sites are refused"
    origin = headers.get("Origin")
    if origin is None:
        return None
    try:
        ours = urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        ours = False
    return None if ours else "the Origin header must name the same host as the Host header"
