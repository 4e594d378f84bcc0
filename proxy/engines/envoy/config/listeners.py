"""The sidecar's ports as Envoy's listeners, bounded in what a client makes them hold."""

from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from math import ceil

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.config.sidecar import Limits, Sidecar
from counterfault.proxy.engines.envoy.config.clusters import HTTP2
from counterfault.proxy.engines.envoy.config.names import (
    DROP_FILTER,
    LINES,
    LUA_FILTER,
    SPACE,
    Json,
    present,
    routes_file,
    seconds,
    typed,
    watched,
)
from counterfault.proxy.engines.envoy.config.native_faults import by_workers
from counterfault.proxy.engines.envoy.config.suppressed_defaults import answers, early, http1
from counterfault.proxy.values.addresses import host_port, is_dual_stack

_BACKLOG = 4096
# What one connection may leave unread on either side; then the sender waits.
_BUFFER = 1 << 16
_STREAMS = 1024
# How long HTTP/2 clients may take to hear that they are to leave.
_PARTING = 1.0
# Envoy passes no upgrades but those it is told of; the others are those of Kubernetes and Docker.
UPGRADES = ("websocket", "spdy/3.1", "tcp")
WHOLE = "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"
ANSWERED = "%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:us)%"
# The fields of a line, in the order in which `lines.py` reads them.
FIELDS = (
    "%ACCESS_LOG_TYPE%",
    "%RESPONSE_CODE%",
    "%RESPONSE_FLAGS%",
    WHOLE,
    ANSWERED,
    "%DURATION%",
    "%UPSTREAM_REMOTE_ADDRESS%",
    f"%DYNAMIC_METADATA({SPACE}:line)%",
)
ESTABLISHED = "DownstreamTunnelSuccessfullyEstablished"


def listeners(sidecar: Sidecar, tls: Mapping[str, tuple[str, str]]) -> list[Json]:
    """`tls`: the certificates and keys of those that have one, as text."""
    return [
        _listener(name, listener, sidecar.limits, tls.get(name))
        for name, listener in sidecar.listeners.items()
        if not by_workers(listener)
    ]


def _listener(name: str, listener: Listener, limits: Limits, tls: tuple[str, str] | None) -> Json:
    host, port = host_port(listener.listen)
    chain: Json = {
        "filters": [_http(name, listener, limits)],
        "transport_socket_connect_timeout": seconds(limits.head_time),
    }
    if tls is not None:
        chain["transport_socket"] = _tls(*tls)
    return typed(
        "config.listener.v3.Listener",
        name=name,
        stat_prefix=name,
        address={
            "socket_address": {
                "address": host,
                "port_value": port,
                "ipv4_compat": is_dual_stack((host, port)),
            }
        },
        tcp_backlog_size=_BACKLOG,
        per_connection_buffer_limit_bytes=_BUFFER,
        filter_chains=[chain],
    )


def _tls(certificate: str, key: str) -> Json:
    own = {
        "certificate_chain": {"inline_string": certificate},
        "private_key": {"inline_string": key},
    }
    common = {
        "tls_certificates": [own],
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
    }
    kind = "extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    context = typed(kind, common_tls_context=common)
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _http(name: str, listener: Listener, limits: Limits) -> Json:
    config = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        rds={"route_config_name": name, "config_source": watched(routes_file(name))},
        http_filters=[_lua(), _drop(), _router()],
        access_log=[_lines(name), _sums(name), _upgrades(name)],
        access_log_options={"flush_log_on_tunnel_successfully_established": True},
        # What comes in goes out: no header is added, none is tidied up. So no `use_remote_address`,
        # which writes X-Forwarded-For (whom we trust is the connection's own peer to say), and no
        # `normalize_path`. x-envoy-fault-… may stay, since there is no filter that it would tell
        # anything; the cohort's tag is believed or taken out by assign.lua.
        early_header_mutation_extensions=[early(listener)],
        server_header_transformation="PASS_THROUGH",
        generate_request_id=False,
        preserve_external_request_id=True,
        normalize_path=False,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        proxy_100_continue=True,
        upgrade_configs=[{"upgrade_type": kind} for kind in UPGRADES],
        http_protocol_options=http1(listener),
        # Floods of frames and resets: Envoy's own limits are narrow enough.
        http2_protocol_options={**HTTP2, "max_concurrent_streams": _STREAMS},
        local_reply_config=answers(),
        **_bounds(limits),
    )
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _bounds(limits: Limits) -> Json:
    return {
        "common_http_protocol_options": {
            "idle_timeout": seconds(limits.idle),
            "max_headers_count": limits.head_count,
            "headers_with_underscores_action": "ALLOW",
        },
        "max_request_headers_kb": ceil(limits.head_bytes / 1024),
        "request_headers_timeout": seconds(limits.head_time),
        "stream_idle_timeout": seconds(limits.idle),
        # From the first GOAWAY, which costs no request, to the last one.
        "drain_timeout": seconds(min(_PARTING, limits.drain / 2)),
        # A dropped request's connection would stay open for a second.
        "delayed_close_timeout": "0.02s",
    }


def _lua() -> Json:
    config = typed("extensions.filters.http.lua.v3.Lua")
    return {"name": LUA_FILTER, "typed_config": config}


def _router() -> Json:
    config = typed(
        "extensions.filters.http.router.v3.Router",
        suppress_envoy_headers=True,
        # Counters by status that nobody reads would cost 3 % of Envoy's time.
        dynamic_stats=False,
    )
    return {"name": "envoy.filters.http.router", "typed_config": config}


def _drop() -> Json:
    """Off, but where a route turns it on; then for requests that are marked."""
    matchers = [_marked("drop", "drop.wasm"), _marked("detour", "dropped.wasm")]
    composite = typed("extensions.filters.http.composite.v3.Composite")
    config = typed(
        "extensions.common.matching.v3.ExtensionWithMatcher",
        extension_config={"name": "composite", "typed_config": composite},
        xds_matcher={"matcher_list": {"matchers": matchers}},
    )
    return {"name": DROP_FILTER, "disabled": True, "typed_config": config}


def _marked(key: str, program: str) -> Json:
    """Run a program for requests with this metadata."""
    code = {"local": {"inline_bytes": _wasm(program)}}
    machine = {"vm_id": program, "runtime": "envoy.wasm.runtime.v8", "code": code}
    wasm = typed(
        "extensions.filters.http.wasm.v3.Wasm",
        config={"name": program, "root_id": program, "vm_config": machine, "fail_open": True},
    )
    act = typed(
        "extensions.filters.http.composite.v3.ExecuteFilterAction",
        typed_config={"name": program, "typed_config": wasm},
    )
    metadata = typed(
        "extensions.matching.common_inputs.network.v3.DynamicMetadataInput",
        filter=SPACE,
        path=[{"key": key}],
    )
    there = typed(
        "extensions.matching.input_matchers.metadata.v3.Metadata", value={"present_match": True}
    )
    marked = {
        "input": {"name": key, "typed_config": metadata},
        "custom_match": {"name": "present", "typed_config": there},
    }
    return {
        "predicate": {"single_predicate": marked},
        "on_match": {"action": {"name": program, "typed_config": act}},
    }


@cache
def _wasm(program: str) -> str:
    return b64encode(files(__package__).joinpath(program).read_bytes()).decode()


def _lines(name: str) -> Json:
    """One line for each enrolled exchange, for the supervisor to count."""
    line = "\t".join((name, *FIELDS)) + "\n"
    config = typed(
        "extensions.access_loggers.file.v3.FileAccessLog",
        path=LINES,
        log_format={"text_format_source": {"inline_string": line}},
    )
    only = {"metadata_filter": {"matcher": present("line"), "match_if_key_not_found": False}}
    return {"name": "lines", "filter": only, "typed_config": config}


def _sums(name: str) -> Json:
    """Everybody else in Envoy's own counters, at the end."""
    upgraded = {"op": "NE", "value": {"default_value": 101, "runtime_key": "none"}}
    ended: list[Json] = [
        {"log_type_filter": {"types": [ESTABLISHED], "exclude": True}},
        {"status_code_filter": {"comparison": upgraded}},
    ]
    return _stats(name, WHOLE, ended)


def _upgrades(name: str) -> Json:
    """An upgrade of everybody else ends when it is made."""
    return _stats(name, ANSWERED, [{"log_type_filter": {"types": [ESTABLISHED]}}])


def _stats(name: str, duration: str, which: list[Json]) -> Json:
    tags = [
        {"name": "code", "value_format": "%RESPONSE_CODE%"},
        {"name": "flags", "value_format": "%RESPONSE_FLAGS%"},
    ]
    took = {"stat": {"name": "duration"}, "unit": "Microseconds", "value_format": duration}
    config = typed(
        "extensions.access_loggers.stats.v3.Config",
        stat_prefix=f"{SPACE}.{name}",
        histograms=[took],
        counters=[{"stat": {"name": "requests", "tags": tags}, "value_fixed": 1}],
    )
    others = {
        "metadata_filter": {
            "matcher": {**present("line"), "value": {"string_match": {"exact": ""}}},
            "match_if_key_not_found": True,
        }
    }
    all_of = {"and_filter": {"filters": [*which, others]}}
    return {"name": "stats", "filter": all_of, "typed_config": config}
