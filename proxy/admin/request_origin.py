"""Refuses requests that a foreign web page made a browser send to the admin port."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from counterfault.proxy.values.addresses import is_loopback


def host_problem(host: str, own: str) -> str | None:
    """Return what is wrong with a Host header; None if it names this host or loopback.

    A page whose DNS name was rebound to this address sends its own name.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if name == own.lower() or is_loopback(name):
        return None
    return f"the Host header must name {own} or a loopback address"


def origin_problem(headers: Mapping[str, str], host: str) -> str | None:
    """Return what is wrong with the origin of a POST; None if nothing is.

    Browsers send the headers that tell; other clients need not.
    """
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
