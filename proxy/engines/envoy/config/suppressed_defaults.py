"""Configuration that suppresses Envoy's own responses and header changes."""

from urllib.parse import urlsplit

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.engines.envoy.config.clusters import HTTP1
from counterfault.proxy.engines.envoy.config.names import (
    CUT_HEADER,
    HTTP_VERSION_HEADER,
    INSTRUCTION_HEADERS,
    NO_PROTO,
    PROTO_HEADER,
    Json,
    logged_if_present,
    typed,
)


def http1_options(listener: Listener) -> Json:
    """Return the HTTP/1 options: HTTP/1.0 is accepted, with the upstream's host if it names none.

    `allow_custom_methods` stays off, because Envoy's security policy does not cover it yet.
    """
    return {
        **HTTP1,
        "accept_http_10": True,
        "default_host_for_http_10": urlsplit(listener.upstream[0]).netloc,
    }


def local_replies() -> Json:
    """Return Envoy's own responses for an upstream that does not respond: 502, as workers send.

    If a detour's connection was closed before the response's head, the response gets CUT_HEADER:
    the drop filter then closes the client's connection in the same way.
    """
    broken_off = {"response_flag_filter": {"flags": ["UC", "UR", "UPE"]}}
    no_answer = {"response_flag_filter": {"flags": ["UC", "UF", "UH", "UPE", "UR"]}}
    cut = {"header": {"key": CUT_HEADER, "value": "1"}}
    return {
        "mappers": [
            {
                "filter": {"and_filter": {"filters": [broken_off, logged_if_present("detour")]}},
                "status_code": 502,
                "headers_to_add": [cut],
            },
            {"filter": no_answer, "status_code": 502},
        ]
    }


def header_marks(listener: Listener) -> Json:
    """Return an extension that changes the headers of a request before Envoy reads them.

    It removes INSTRUCTION_HEADERS. It marks a request without PROTO_HEADER, so that a route can
    remove what Envoy adds. Before an https upstream, it notes the client's HTTP version.
    """
    proto = {"header": {"key": PROTO_HEADER, "value": NO_PROTO}, "append_action": "ADD_IF_ABSENT"}
    http = {
        "header": {"key": HTTP_VERSION_HEADER, "value": "%PROTOCOL%"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    marks = [proto, http] if listener.scheme == "https" else [proto]
    config = typed(
        "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[
            *({"remove": name} for name in INSTRUCTION_HEADERS),
            *({"append": mark} for mark in marks),
        ],
    )
    return {"name": "early", "typed_config": config}
