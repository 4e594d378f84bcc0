"""A listener's upstreams as addresses, and their positions on the ring that workers use too."""

from collections.abc import Iterable
from ipaddress import ip_address

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.engines.upstream_ring import ByteRing
from counterfault.proxy.values.addresses import HostPort, upstream_address


def sticky(listener: Listener) -> bool:
    """Whether the listener has several upstreams, so that a request's unit determines its own."""
    return len(listener.upstream) > 1


def all_ips(nodes: Iterable[HostPort]) -> bool:
    """Whether all hosts are IP addresses, so that none has to be looked up."""
    return all(_is_ip(host) for host, _ in nodes)


def ring_positions(listener: Listener) -> str:
    """Return the ring for ring.lua: `POSITION:ADDRESS,…` in order of the positions.

    Empty with one upstream, or if a host is a name: only Envoy knows the address of that.
    """
    nodes = {url: upstream_address(url) for url in listener.upstream}
    if len(nodes) < 2 or not all_ips(nodes.values()):
        return ""
    return ",".join(
        f"{place}:{_address_text(nodes[url])}" for place, url in ByteRing(list(nodes)).positions()
    )


def _address_text(node: HostPort) -> str:
    """Return the address in Envoy's notation."""
    address = ip_address(node[0])
    return f"{address}:{node[1]}" if address.version == 4 else f"[{address}]:{node[1]}"


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
