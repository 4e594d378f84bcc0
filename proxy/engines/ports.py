"""Listening sockets that several processes share, and whether a port is free."""

import socket

from counterfault.proxy.values.addresses import HostPort, is_dual_stack

_BACKLOG = 4096


class PortTaken(OSError):
    """Another process has the port of a listener."""


def listening_socket(address: HostPort) -> socket.socket:
    """Return a listening socket whose port further sockets of this user may share.

    Raises OSError.
    """
    sock = bound_socket(address)
    try:
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def bound_socket(address: HostPort) -> socket.socket:
    """Return a socket as from `listening_socket`, before it listens. Raises OSError."""
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


def bound_address(sock: socket.socket) -> HostPort:
    """Return host and port that a socket is bound to."""
    host, port = sock.getsockname()[:2]
    return host, port


def why_taken(address: HostPort) -> str | None:
    """Return the error that keeps us from having a port alone, or None if it is free.

    The trial goes without SO_REUSEPORT, so that any other listening socket is an obstacle.
    """
    with socket.socket(family(address), socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
        except OSError as e:
            return e.strerror
    return None


def family(address: HostPort) -> socket.AddressFamily:
    """Return the address family of a host given as an IP address."""
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET
