"""Chooses the layers of a client connection.

mitmproxy's layers are a stack of generators: an event from a socket goes in at the outermost
layer, each layer hands it to the one inside, and the commands that come out say which bytes to
send, which connections to open or close, and which hook to run. counterfault uses the layers
without mitmproxy's server: `transport.ClientConnection` feeds the events and carries out the
commands, and `mitm.HookDispatcher` runs the hooks.

    RootLayer ─── SidecarTcp                                      a listener with tcp:// upstreams
    RootLayer ─── NextLayer ─┬─ ClientTLSLayer ─── SidecarHttp    a listener with a certificate
                             ├─ SidecarHttp                       cleartext HTTP/1 or HTTP/2
                             └─ SidecarHttp ─── ForwardStream     a forward proxy
                                                 └─ NextLayer     a tunnel that is intercepted:
                                                     ├─ ClientTLSLayer ─── SidecarHttp
                                                     └─ TCPLayer  what the client sends is not TLS

Inside SidecarHttp there is a SidecarStream for each request, and for each upstream connection a
ToUpstream codec, below TLS where the upstream's URL is https.

The listener's configuration decides about TLS and TCP alone: the client cannot choose cleartext
at a listener with a certificate. Only two things depend on the client's first bytes, and NextLayer
waits for them: HTTP/1 or HTTP/2 without TLS (the connection preface of RFC 9113, 3.4), and TLS or
not in an intercepted tunnel (the first byte of a TLS record). With TLS, ALPN decides about HTTP/2.

A raw connection needs no NextLayer, because its server may be the first to speak.
"""

from typing import Protocol

from mitmproxy.proxy import events, layer, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HTTPMode

from counterfault.addons.http.forward_stream import ForwardStream
from counterfault.addons.http.layer import SidecarHttp
from counterfault.addons.pipeline.exchange import Peer
from counterfault.addons.tcp.enrolment import TcpContext
from counterfault.addons.tcp.layer import SidecarTcp

type Generator[T] = layer.CommandGenerator[T]

# The begin of HTTP/2's connection preface, which no HTTP/1 request begins with.
_H2_PREFACE = b"PRI"
# The first byte of a TLS record with a handshake (RFC 8446, 5.1).
_TLS_HANDSHAKE = b"\x16"


class LayerOwner(Peer, Protocol):
    """The client connection, which keeps a list of its layers."""

    layers: list[layer.Layer]
    """The chosen layers for TLS, HTTP and TCP, from the outside in."""


class RootLayer(layer.Layer):
    """The outermost layer of a client connection."""

    def __init__(self, context: Context, owner: LayerOwner, tcp: TcpContext) -> None:
        """Choose the first layer, as far as the listener alone decides."""
        super().__init__(context)
        # Each request names its upstream; this placeholder never matches one.
        context.server.address = ("upstream.invalid", 1)
        self._child: layer.Layer
        if owner.route.scheme == "tcp":
            self._child = SidecarTcp(context, owner, tcp)
            owner.layers.append(self._child)
        else:
            self._child = layer.NextLayer(context)

    def handle_event(self, event: events.Event) -> Generator[None]:
        """Hand an event to the child; NextLayer replaces its own methods by the chosen layer's."""
        return self._child.handle_event(event)

    _handle_event = handle_event


def choose_layer(next_layer: layer.NextLayer, owner: LayerOwner, has_certificate: bool) -> None:
    """Handle mitmproxy's `next_layer` hook: set the layer that takes the next one's place.

    Leaves it unset while the client has sent too few bytes; the hook runs again with more.

    Args:
        next_layer: The undecided layer.
        owner: The client connection.
        has_certificate: Whether the listener serves TLS.
    """
    context = next_layer.context
    if isinstance(context.layers[-1], ForwardStream):
        next_layer.layer = _tunnel_layer(next_layer)
    elif context.client.tls:
        next_layer.layer = SidecarHttp(context, owner, HTTPMode.transparent)
    elif has_certificate:
        next_layer.layer = layers.ClientTLSLayer(context)
    elif owner.route.forward:
        next_layer.layer = SidecarHttp(context, owner, HTTPMode.regular)
    else:
        start = next_layer.data_client()[: len(_H2_PREFACE)]
        if _H2_PREFACE.startswith(start):
            if len(start) < len(_H2_PREFACE):
                return
            context.client.alpn = b"h2"
        next_layer.layer = SidecarHttp(context, owner, HTTPMode.transparent)
    owner.layers.append(next_layer.layer)


def _tunnel_layer(next_layer: layer.NextLayer) -> layer.Layer:
    """Return the layer inside a tunnel to an intercepted host, which need not carry TLS."""
    context = next_layer.context
    if not next_layer.data_client().startswith(_TLS_HANDSHAKE):
        return layers.TCPLayer(context, ignore=True)
    context.server.tls = True
    return layers.ClientTLSLayer(context)
