"""The options that mitmproxy's layers read, as plain attributes; its own copy on every read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from mitmproxy.options import Options


def options() -> Options:
    """Return a stand-in for mitmproxy's options, whose import takes two seconds."""
    return cast(
        "Options",
        SimpleNamespace(
            body_size_limit=None,
            connection_strategy="lazy",
            http2_ping_keepalive=0,
            keep_host_header=True,
            normalize_outbound_headers=True,
            proxy_debug=False,
            rawtcp=True,
            store_streamed_bodies=False,
            stream_large_bodies=None,
            tcp_timeout=600,
            validate_inbound_headers=True,
            websocket=False,
        ),
    )
