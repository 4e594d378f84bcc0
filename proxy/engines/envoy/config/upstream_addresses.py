"""A listener's upstreams as addresses, and their places on the ring that workers have too."""

from collections.abc import Iterable
from ipaddress import ip_address

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.engines.upstream_ring import ByteRing
from counterfault.proxy.values.addresses import HostPort, upstream_address


def sticky(listener: Listener) -> bool:
    """Whether a request's unit says where it goes."""
    return len(listener.upstream) > 1


def all_ips(nodes: Iterable[HostPort]) -> bool:
    """Whether nobody has to be asked for an address."""
    return all(_is_ip(host) for host, _ in nodes)


def places(listener: Listener) -> str:
    """`PLACE:ADDRESS,…` in order, for ring.lua; nothing where Envoy has to find addresses out."""
    nodes = {url: upstream_address(url) for url in listener.upstream}
    if len(nodes) < 2 or not all_ips(nodes.values()):
        return ""
    return ",".join(
        f"{place}:{_said(nodes[url])}" for place, url in ByteRing(list(nodes)).positions()
    )


def _said(node: HostPort) -> str:
    """As Envoy writes it."""
    address = ip_address(node[0])
    return f"{address}:{node[1]}" if address.version == 4 else f"[{address}]:{node[1]}"


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
