"""The sidecar's listeners as Envoy's, with bounds on what a client can make Envoy hold."""

from collections.abc import Mapping
from math import ceil

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.config.sidecar import Limits, Sidecar
from counterfault.proxy.engines.envoy.config.access_logs import access_logs
from counterfault.proxy.engines.envoy.config.clusters import HTTP2
from counterfault.proxy.engines.envoy.config.drop_filter import drop_filter
from counterfault.proxy.engines.envoy.config.names import (
    LUA_FILTER,
    Json,
    json_duration,
    routes_file,
    typed,
    watched_file,
)
from counterfault.proxy.engines.envoy.config.native_faults import served_by_workers
from counterfault.proxy.engines.envoy.config.suppressed_defaults import (
    header_marks,
    http1_options,
    local_replies,
)
from counterfault.proxy.values.addresses import host_port, is_dual_stack

_BACKLOG = 4096
# Bytes that may wait on either side of a connection; then Envoy stops reading from the sender.
_BUFFER_BYTES = 1 << 16
_MOST_STREAMS = 1024
# Seconds between an HTTP/2 client's first GOAWAY, which costs no request, and the last one.
_GOAWAY_PERIOD = 1.0
# Envoy passes on only the upgrades in this list. Kubernetes uses spdy/3.1, and Docker tcp.
UPGRADES = ("websocket", "spdy/3.1", "tcp")


def listeners(sidecar: Sidecar, tls: Mapping[str, tuple[str, str]]) -> list[Json]:
    """Return Envoy's listeners: all of the sidecar's but the ones that workers serve.

    Args:
        sidecar: The model of sidecar.yaml.
        tls: The PEM text of certificate and key, by the name of each listener with TLS.
    """
    return [
        _listener(name, listener, sidecar.limits, tls.get(name))
        for name, listener in sidecar.listeners.items()
        if not served_by_workers(listener)
    ]


def _listener(name: str, listener: Listener, limits: Limits, tls: tuple[str, str] | None) -> Json:
    host, port = host_port(listener.listen)
    chain: Json = {
        "filters": [_http(name, listener, limits)],
        "transport_socket_connect_timeout": json_duration(limits.head_time),
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
        per_connection_buffer_limit_bytes=_BUFFER_BYTES,
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
        rds={"route_config_name": name, "config_source": watched_file(routes_file(name))},
        http_filters=[_lua(), drop_filter(), _router()],
        access_log=access_logs(name),
        access_log_options={"flush_log_on_tunnel_successfully_established": True},
        # Requests pass unchanged: Envoy adds no header and normalises nothing. So there is no
        # `use_remote_address`, which would write X-Forwarded-For; the Lua program decides by the
        # connection's peer whether to trust a cohort tag. x-envoy-fault-… headers may stay,
        # because no filter here reads them.
        early_header_mutation_extensions=[header_marks(listener)],
        server_header_transformation="PASS_THROUGH",
        generate_request_id=False,
        preserve_external_request_id=True,
        normalize_path=False,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        proxy_100_continue=True,
        upgrade_configs=[{"upgrade_type": kind} for kind in UPGRADES],
        http_protocol_options=http1_options(listener),
        # Envoy's default limits on floods of frames and resets are narrow enough.
        http2_protocol_options={**HTTP2, "max_concurrent_streams": _MOST_STREAMS},
        local_reply_config=local_replies(),
        **_bounds(limits),
    )
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _bounds(limits: Limits) -> Json:
    return {
        "common_http_protocol_options": {
            "idle_timeout": json_duration(limits.idle),
            "max_headers_count": limits.head_count,
            "headers_with_underscores_action": "ALLOW",
        },
        "max_request_headers_kb": ceil(limits.head_bytes / 1024),
        "request_headers_timeout": json_duration(limits.head_time),
        "stream_idle_timeout": json_duration(limits.idle),
        "drain_timeout": json_duration(min(_GOAWAY_PERIOD, limits.drain / 2)),
        # By default the connection of a dropped request would stay open for a second.
        "delayed_close_timeout": "0.02s",
    }


def _lua() -> Json:
    config = typed("extensions.filters.http.lua.v3.Lua")
    return {"name": LUA_FILTER, "typed_config": config}


def _router() -> Json:
    config = typed(
        "extensions.filters.http.router.v3.Router",
        suppress_envoy_headers=True,
        # The router's counters by status, which are not read, would cost 3 % of Envoy's time.
        dynamic_stats=False,
    )
    return {"name": "envoy.filters.http.router", "typed_config": config}
