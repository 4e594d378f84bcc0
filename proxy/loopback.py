"""Which hosts are this machine's own."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own; names are not looked up."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
