"""Which hosts are this machine's own."""

import pytest

from counterfault.proxy.values.addresses import is_loopback


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
