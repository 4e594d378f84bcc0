"""The sidecar's settings: addresses, units, trust."""

from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.values.addresses import LOOPBACK, host_port

INBOUND = {"listen": "127.0.0.1:8080", "upstream": "http://127.0.0.1:3000"}
LEAST = {"service": "shop", "listeners": {"inbound": INBOUND}}


def sidecar(**changes):
    return Sidecar.model_validate(LEAST | changes)


def listener(**changes):
    return sidecar(listeners={"inbound": INBOUND | changes}).listeners["inbound"]


def test_what_is_not_said_has_a_default():
    least = sidecar()
    assert (least.engine, least.workers, least.admin.listen) == ("mitmproxy", 1, "127.0.0.1:9900")
    assert (least.limits.enrolled, least.limits.active_faults, least.limits.lease) == (0.1, 100, 3)
    assert [source.header for source in least.unit] == ["x-user-id"]
    assert least.protect == ("/healthz", "/livez", "/readyz", "/metrics")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_an_address_is_a_host_and_a_port(text, address):
    assert host_port(text) == address


@pytest.mark.parametrize(
    "text", ["", "8080", ":8080", "a:", "a:x", "a:65536", "a:1/", "a:1?", "u@a:1", "a b:1", "a:1\n"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"must be an address such as 127\.0\.0\.1:8080, not"):
        host_port(text)


@pytest.mark.parametrize(
    "url", ["http://a", "https://a:443", "tcp://a:1", "http://[::1]", "http://[::1]:80"]
)
def test_an_upstream_is_a_url_without_path(url):
    assert listener(upstream=url).upstream == (url,)
    assert listener(upstream=url).scheme == url.partition(":")[0]


def test_an_upstreams_last_slash_is_dropped():
    assert listener(upstream="http://a:80/").upstream == ("http://a:80",)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a:80",
        "ftp://a",
        "http://",
        "http://:80",
        "http://a:",
        "http://a:x",
        "http://a:65536",
        "http://a/b",
        "http://a//",
        "http://a?b",
        "http://u@a",
        "http://[",
        "http://a b",
        "http://a\n",
        "tcp://a",
    ],
)
def test_what_is_no_upstream_is_refused(url):
    with pytest.raises(ValidationError, match=r"must be http://HOST\[:PORT\], https:"):
        listener(upstream=url)


@pytest.mark.parametrize(
    ("upstream", "said"),
    [
        ([], "must name at least one upstream"),
        (["http://a", "https://b"], "must have one scheme for all upstreams"),
        (["http://a", "http://a/"], "must name each upstream once"),
    ],
)
def test_upstreams_of_one_listener_go_together(upstream, said):
    with pytest.raises(ValidationError, match=said):
        listener(upstream=upstream)


def test_a_forward_listener_has_neither_upstream_nor_tls():
    out = {"listen": "127.0.0.1:1", "mode": "forward"}
    found = sidecar(listeners={"out": out}).listeners["out"]
    assert (found.forward, found.upstream, found.scheme) == (True, (), "http")
    assert not listener().forward
    tls = {"cert": "a", "key": "b"}
    for wrong in ({"upstream": "http://a"}, {"tls": tls}, {"mode": "reverse"}):
        with pytest.raises(ValidationError):
            sidecar(listeners={"out": out | wrong})


def test_listeners_have_addresses_of_their_own():
    with pytest.raises(ValidationError, match=r"b and a both listen on 127\.0\.0\.1:8080"):
        sidecar(listeners={"a": INBOUND, "b": INBOUND})
    any_port = INBOUND | {"listen": "127.0.0.1:0"}
    assert len(sidecar(listeners={"a": any_port, "b": any_port}).listeners) == 2


@pytest.mark.parametrize(
    "source", [{}, {"header": "a", "cookie": "b"}, {"header": "a b"}, {"cookie": ""}, {"path": "a"}]
)
def test_a_unit_source_is_one_header_cookie_or_baggage_member(source):
    with pytest.raises(ValidationError):
        sidecar(unit=[source])


def test_inbound_trusts_nobody_and_the_others_loopback():
    found = sidecar(listeners={"inbound": INBOUND, "out": INBOUND | {"listen": "127.0.0.1:1"}})
    assert found.trusted("inbound") == ()
    assert found.trusted("out") == LOOPBACK


def test_a_listeners_own_trust_outranks_the_sidecars():
    out = {"listen": "127.0.0.1:1", "upstream": "http://a", "trust": ["192.168.0.0/16"]}
    found = sidecar(trust=["10.0.0.0/8", "fd00::/8"], listeners={"inbound": INBOUND, "out": out})
    assert found.trusted("inbound") == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert found.trusted("out") == (ip_network("192.168.0.0/16"),)
    assert listener(trust=[]).trust == ()


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10/8", "", "example", 10, None])
def test_what_is_no_network_is_refused(network):
    with pytest.raises(ValidationError, match=r"must be a network such as 10\.0\.0\.0/8"):
        sidecar(trust=[network])


@pytest.mark.parametrize(
    "limits",
    [{"lease": "100ms"}, {"lease": "61s"}, {"active_faults": -1}, {"enrolled": "101%"}],
)
def test_limits_have_limits(limits):
    with pytest.raises(ValidationError):
        sidecar(limits=limits)
