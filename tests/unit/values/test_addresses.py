"""Which hosts are this machine's own, and where an upstream is."""

import pytest

from counterfault.proxy.values.addresses import is_loopback, upstream_address


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("shop.localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("", False),
        ("0.0.0.0", False),
        ("localhost.example", False),
        ("192.168.1.1", False),
    ],
)
def test_loopback_is_known_without_looking_up(host, expected):
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://shop", ("shop", 80)),
        ("https://shop", ("shop", 443)),
        ("http://shop:8080", ("shop", 8080)),
        ("https://[::1]:9443", ("::1", 9443)),
        ("tcp://127.0.0.1:6379", ("127.0.0.1", 6379)),
    ],
)
def test_an_upstream_without_a_port_has_its_schemes(url, address):
    assert upstream_address(url) == address
