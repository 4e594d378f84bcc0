"""Every private name of mitmproxy, h11 and pyOpenSSL that counterfault uses.

The rest of `addons/` imports these names from here, so an upgrade of one of the three libraries
breaks in this file. `fast_paths` guards the functions that are replaced; the tests guard the rest.
Besides, `fast_layers` reads `Layer._paused` and `Layer._paused_event_queue`, since its functions
stand in for methods of `Layer`.
"""

from typing import Any

from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy import http
from mitmproxy.coretypes.multidict import MultiDict
from mitmproxy.http import Headers
from mitmproxy.net.http import http1, validate
from mitmproxy.proxy.layer import Layer, Paused
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._hooks import HttpErrorHook, HttpRequestHeadersHook
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Connection, Http1Server
from mitmproxy.proxy.layers.http._http2 import (
    Http2Client,
    Http2Server,
    StreamState,
    parse_h2_response_headers,
)
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection, SendH2Data
from OpenSSL import SSL

__all__ = [
    "BODY_SIZE",
    "HEADER_CONTAINS",
    "HEADER_GET",
    "HEADER_GET_ALL",
    "HEADER_INIT",
    "LAYER_DISPATCH",
    "BufferedH2Connection",
    "ChunkedReader",
    "ErrorCode",
    "Http1Client",
    "Http1Connection",
    "Http1Server",
    "Http2Client",
    "Http2Server",
    "HttpErrorHook",
    "HttpEvent",
    "HttpRequestHeadersHook",
    "ReceiveBuffer",
    "ReceiveHttp",
    "RequestData",
    "RequestEndOfMessage",
    "RequestHeaders",
    "RequestProtocolError",
    "RequestTrailers",
    "ResponseData",
    "ResponseEndOfMessage",
    "ResponseHeaders",
    "ResponseProtocolError",
    "ResponseTrailers",
    "SendH2Data",
    "StreamState",
    "is_paused",
    "parse_h2_response_headers",
    "queued_bytes",
    "verify_parameters",
]


def is_paused(layer: Layer) -> bool:
    """Return whether a layer waits for the reply to a blocking command."""
    return layer._paused is not None


def queued_bytes(layer: Layer) -> int:
    """Return how many bytes of data came for a layer while it was paused."""
    return sum(len(getattr(event, "data", b"")) for event in layer._paused_event_queue)


def verify_parameters(connection: SSL.Connection) -> tuple[Any, Any]:
    """Return OpenSSL's C functions, and this connection's X509_VERIFY_PARAM for them.

    pyOpenSSL has no call of its own that ties a certificate to a host name.
    """
    lib: Any = SSL._lib  # type: ignore[attr-defined]
    return lib, lib.SSL_get0_param(connection._ssl)


# The functions that work together in each of mitmproxy's functions that ours replace. Ours is
# compared with the source of them all (`Replacement.sources`).
_text: Any = (http._always_bytes, http._native)
HEADER_INIT = (Headers.__init__, MultiDict.__init__)
HEADER_GET_ALL = (Headers.get_all, MultiDict.get_all, Headers._kconv, *_text)
_getitem = (Headers.__getitem__, Headers._reduce_values, *HEADER_GET_ALL)
HEADER_CONTAINS = (Headers.__contains__, *_getitem)
HEADER_GET = (Headers.get, *_getitem)
BODY_SIZE = (http1.expected_http_body_size, validate.parse_content_length, *HEADER_GET)

_layer: Any = Layer
LAYER_DISPATCH = (Layer.handle_event, _layer._Layer__process, _layer._Layer__continue, Paused)
