"""Questions about the layers of a client connection: what they hold and what they wait for."""

from collections.abc import Sequence
from typing import Any

from mitmproxy.connection import Connection
from mitmproxy.proxy import layer, layers, tunnel

from counterfault.addons.http.client_codec import Http1FromClient
from counterfault.addons.http.layer import SidecarHttp
from counterfault.addons.http.stream import SidecarStream
from counterfault.addons.http.upstream_codec import HTTP2
from counterfault.addons.mitm.private import queued_bytes
from counterfault.addons.tcp.layer import SidecarTcp


def held_bytes(chosen: Sequence[layer.Layer], source: Connection | None = None) -> int:
    """Return how many bytes wait in the layers, for a held exchange or a slow HTTP/2 peer.

    Bytes that a rate limit holds count only if they came from `source`.
    """
    held = sum(each.held_bytes(source) for each in chosen if isinstance(each, SidecarTcp))
    for http_layer in (each for each in chosen if isinstance(each, SidecarHttp)):
        if source in http_layer.waiting_for_establishment:
            return 0  # the others wait for its TLS handshake, so it has to be read
        for stream in http_layer.streams.values():
            held += queued_bytes(stream)
            if isinstance(stream, SidecarStream):
                held += _rate_limited_bytes(stream, source)
        for codec in http_layer.connections.values():
            held += _unsent_h2_bytes(codec)
    return held


def active_requests(chosen: Sequence[layer.Layer]) -> int:
    """Return how many requests, raw turns and tunnels are under way.

    An intercepted tunnel does not count, but the requests inside it do.
    """
    http_layers = (each for each in chosen if isinstance(each, SidecarHttp))
    streams = (stream for each in http_layers for stream in each.streams.values())
    turns = sum(each.turns.current is not None for each in chosen if isinstance(each, SidecarTcp))
    return turns + sum(not isinstance(stream.child_layer, layer.NextLayer) for stream in streams)


def head_unfinished(chosen: Sequence[layer.Layer]) -> bool:
    """Return whether a client has begun a TLS handshake or a request head and not finished it."""
    for each in chosen:
        if isinstance(each, layers.ClientTLSLayer):
            if each.tunnel_state is tunnel.TunnelState.ESTABLISHING and each.recv_buffer:
                return True
        elif isinstance(each, SidecarHttp):
            codec = each.connections.get(each.context.client)
            if isinstance(codec, Http1FromClient) and codec.buf:
                return bool(codec.state == codec.read_headers)
    return False


def _rate_limited_bytes(stream: SidecarStream, source: Connection | None) -> int:
    if source is stream.context.client:
        return stream.held_request_bytes
    # An HTTP/2 upstream has a window for each stream, and serves the others meanwhile.
    paused = source is stream.context.server and source.alpn != HTTP2
    return stream.held_response_bytes if paused else 0


def _unsent_h2_bytes(codec: Any) -> int:
    h2_conn = getattr(codec, "h2_conn", None)
    if h2_conn is None:
        return 0
    return sum(len(item.data) for queue in h2_conn.stream_buffers.values() for item in queue)
