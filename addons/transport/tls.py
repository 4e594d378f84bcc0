"""TLS contexts for clients and for upstreams, and the verification of upstreams."""

import ssl
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from mitmproxy.connection import Server
from mitmproxy.net import tls as net_tls
from mitmproxy.tls import TlsData
from OpenSSL import SSL

from counterfault.addons.mitm.private import verify_parameters

HTTP2, HTTP1 = b"h2", b"http/1.1"


def server_context() -> SSL.Context:
    """Return a context for TLS with clients that has no certificate yet."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_alpn_select_callback(_choose_alpn)
    return context


def listener_context(cert: Path, key: Path) -> SSL.Context:
    """Return a server context with a certificate chain. Raises SSL.Error if it is unusable."""
    context = server_context()
    context.use_certificate_chain_file(str(cert))
    context.use_privatekey_file(str(key))
    context.check_privatekey()
    return context


def start_client(data: TlsData, context: SSL.Context) -> None:
    """Give mitmproxy the TLS state with which it serves a client."""
    data.ssl_conn = SSL.Connection(context)
    data.ssl_conn.set_accept_state()


def start_server(data: TlsData, ca: Path | None) -> None:
    """Give mitmproxy the TLS state for an upstream, and offer it the client's HTTP version.

    Args:
        data: Of the upstream connection, which has an address.
        ca: The file of certificates to verify the upstream by; None for the system's store.

    Raises:
        ValueError: It is no upstream, or its name cannot be verified.
    """
    server = data.conn
    if not isinstance(server, Server) or server.address is None:
        raise ValueError(f"not an upstream: {server}")
    server.sni = server.sni or server.address[0]
    server.alpn_offers = (HTTP2, HTTP1) if data.context.client.alpn == HTTP2 else (HTTP1,)
    connection = SSL.Connection(_upstream_context(ca))
    _verify_name(connection, server.sni)
    connection.set_alpn_protos(list(server.alpn_offers))
    connection.set_connect_state()
    data.ssl_conn = connection


def _verify_name(connection: SSL.Connection, name: str) -> None:
    """Have OpenSSL accept a certificate for this host name or IP address only."""
    lib, param = verify_parameters(connection)
    lib.X509_VERIFY_PARAM_set_hostflags(param, lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS)
    try:
        packed = ip_address(name).packed
    except ValueError:
        host = name.encode("idna")
        connection.set_tlsext_host_name(host)
        ok = lib.X509_VERIFY_PARAM_set1_host(param, host, len(host))
    else:
        # No server name is sent: an address is none (RFC 6066, section 3).
        ok = lib.X509_VERIFY_PARAM_set1_ip(param, packed, len(packed))
    if ok != 1:
        raise ValueError(f"cannot verify the name {name!r}")


@lru_cache(64)
def _upstream_context(ca: Path | None) -> SSL.Context:
    return net_tls.create_proxy_server_context(
        method=net_tls.Method.TLS_CLIENT_METHOD,
        min_version=net_tls.Version.TLS1_2,
        max_version=net_tls.Version.UNBOUNDED,
        cipher_list=None,
        ecdh_curve=None,
        verify=net_tls.Verify.VERIFY_PEER,
        ca_path=None,
        ca_pemfile=str(ca) if ca else ssl.get_default_verify_paths().cafile,
        client_cert=None,
        legacy_server_connect=False,
    )


def _choose_alpn(_: SSL.Connection, offers: list[bytes]) -> Any:
    for protocol in (HTTP2, HTTP1):
        if protocol in offers:
            return protocol
    return SSL.NO_OVERLAPPING_PROTOCOLS
