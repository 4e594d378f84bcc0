"""What Envoy would say, add or take by itself, and how it is kept from that."""

from urllib.parse import urlsplit

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.engines.envoy.config.clusters import HTTP1
from counterfault.proxy.engines.envoy.config.names import (
    CUT,
    HTTP,
    INSTRUCTIONS,
    NONE,
    PROTO,
    Json,
    present,
    typed,
)


def http1(listener: Listener) -> Json:
    """Of an HTTP/1.0 client that names no host the upstream's is meant.

    `allow_custom_methods` stays off: Envoy's security team does not answer for it yet.
    """
    return {
        **HTTP1,
        "accept_http_10": True,
        "default_host_for_http_10": urlsplit(listener.upstream[0]).netloc,
    }


def answers() -> Json:
    """What Envoy says for an upstream that does not answer: 502, as workers do.

    Where the upstream, or workers, have broken off a detour before the head, that is marked.
    """
    broken_off = {"response_flag_filter": {"flags": ["UC", "UR", "UPE"]}}
    detour = {"metadata_filter": {"matcher": present("detour"), "match_if_key_not_found": False}}
    no_answer = {"response_flag_filter": {"flags": ["UC", "UF", "UH", "UPE", "UR"]}}
    cut = {"header": {"key": CUT, "value": "1"}}
    return {
        "mappers": [
            {
                "filter": {"and_filter": {"filters": [broken_off, detour]}},
                "status_code": 502,
                "headers_to_add": [cut],
            },
            {"filter": no_answer, "status_code": 502},
        ]
    }


def early(listener: Listener) -> Json:
    """What clients may not tell Envoy goes; what Envoy would add is marked for the route.

    So is the client's HTTP, where the upstream can be spoken to in more than that.
    """
    proto = {"header": {"key": PROTO, "value": NONE}, "append_action": "ADD_IF_ABSENT"}
    http = {
        "header": {"key": HTTP, "value": "%PROTOCOL%"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    marks = [proto, http] if listener.scheme == "https" else [proto]
    config = typed(
        "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[*({"remove": name} for name in INSTRUCTIONS), *({"append": m} for m in marks)],
    )
    return {"name": "early", "typed_config": config}
