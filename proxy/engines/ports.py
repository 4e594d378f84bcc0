"""Listening sockets that several processes share, and ports that somebody else has."""

import socket

from counterfault.proxy.values.addresses import HostPort, is_dual_stack

_BACKLOG = 4096


class PortTaken(OSError):
    """Somebody else listens where a listener should."""


def listening(address: HostPort) -> socket.socket:
    """A socket on a port that further sockets of ours may share."""
    sock = bound(address)
    try:
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def bound(address: HostPort) -> socket.socket:
    """The same before it listens."""
    sock = socket.socket(family(address), socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_dual_stack(address))
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def address_of(sock: socket.socket) -> HostPort:
    host, port = sock.getsockname()[:2]
    return host, port


def why_taken(address: HostPort) -> str | None:
    """What keeps us from having a port alone; without SO_REUSEPORT any listener does."""
    with socket.socket(family(address), socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
        except OSError as e:
            return e.strerror
    return None


def family(address: HostPort) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET
