"""Parses the addresses that users write: to listen on, of upstreams, servers and networks."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from counterfault.proxy.values.units import shown

type Network = IPv4Network | IPv6Network
type HostPort = tuple[str, int]

# Checked first, because urlsplit() drops line breaks and lets spaces pass.
_AUTHORITY = re.compile(r"[^\s/?#@\x00-\x20\x7f]+")
_UPSTREAM = re.compile(r"(http|https|tcp)://([^/?#@]+)/?")
_SERVER = re.compile(r"(https?)://([^/?#\s]+)(/[^?#\s]*)?")
_PORT = re.compile(r":[^\]]*$")


def host_port(value: str) -> HostPort:
    """Return host and port of `127.0.0.1:8080` or `[::1]:8080`; an IPv6 host without brackets.

    Raises ValueError for anything else.
    """
    host, port = _host_port(value)
    if not host or port is None:
        raise ValueError(f"must be an address such as 127.0.0.1:8080, not {shown(value)}")
    return host, port


def upstream_address(url: str) -> HostPort:
    """Host and port of an upstream's URL; without a port, 443 for `https` and 80 for others."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _host_port(value: str) -> tuple[str | None, int | None]:
    """Return host and port; None for one that is missing or malformed."""
    if not _AUTHORITY.fullmatch(value):
        return None, None
    try:
        split = urlsplit(f"//{value}")
        return split.hostname, split.port
    except ValueError:
        return None, None


def _listen(value: str) -> str:
    host_port(value)
    return value


def _upstream(value: str) -> str:
    found = _UPSTREAM.fullmatch(value)
    host, port = _host_port(found[2]) if found else (None, None)
    # A malformed port must not pass for a missing one.
    if not found or not host or (port is None and (found[1] == "tcp" or _PORT.search(found[2]))):
        allowed = "http://HOST[:PORT], https://HOST[:PORT] or tcp://HOST:PORT"
        raise ValueError(f"must be {allowed}, not {shown(value)}")
    return value.rstrip("/")


def _server(value: str) -> str:
    if "@" in value:  # the message does not quote it: there is a password in it
        raise ValueError("must hold no user and password; use token_file")
    found = _SERVER.fullmatch(value)
    host, port = _host_port(found[2]) if found else (None, None)
    if not found or not host or (port is None and _PORT.search(found[2])):
        raise ValueError(f"must be http(s)://HOST[:PORT][/PATH], not {shown(value)}")
    return value.rstrip("/")


def _network(value: Any) -> Network:
    try:  # a bare number would pass for an IPv4 address
        return ip_network(value if isinstance(value, str) else "")
    except ValueError as e:
        said = f"must be a network such as 10.0.0.0/8 (host bits zero), not {shown(value)}"
        raise ValueError(said) from e


Listen = Annotated[str, AfterValidator(_listen)]
Server = Annotated[str, AfterValidator(_server)]
Upstream = Annotated[str, AfterValidator(_upstream)]
Trust = Annotated[
    tuple[Annotated[Network, BeforeValidator(_network), WithJsonSchema({"type": "string"})], ...],
    Field(strict=False),
]
LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own; names are not looked up."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_dual_stack(address: HostPort) -> bool:
    """Whether a socket on this address accepts IPv4 clients too: it is IPv6's unspecified one."""
    return ":" in address[0] and not int(ip_address(address[0]))
