"""Envoy's clusters: the upstreams, the workers that serve detours, and the delay server."""

from collections.abc import Mapping

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.config.sidecar import Limits, Sidecar
from counterfault.proxy.engines.envoy.config.lua_program import STICKY_HEADER
from counterfault.proxy.engines.envoy.config.names import (
    DELAY_CLUSTER,
    DELAY_SOCKET,
    Json,
    detour_cluster,
    http1_cluster,
    json_duration,
    typed,
    workers_cluster,
)
from counterfault.proxy.engines.envoy.config.native_faults import served_by_workers
from counterfault.proxy.engines.envoy.config.upstream_addresses import all_ips, sticky
from counterfault.proxy.values.addresses import HostPort, upstream_address

_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# Envoy's default bounds (1024 of each) would fail traffic that `limits.connections` admits.
_UNBOUNDED = 1 << 30
# Seconds after which Envoy closes an idle upstream connection: before servers do, most of which
# wait five seconds or more, so that no request meets a connection that is about to close.
_UPSTREAM_IDLE_SECONDS = 4.0
# Seconds for which a node that refused a connection is left out; its units use other nodes.
_EJECTION_SECONDS = 1.0
_STREAM_WINDOW, _CONNECTION_WINDOW = 1 << 20, 16 << 20
_KEEP_HEADER_CASE = {
    "stateful_formatter": {
        "name": "preserve_case",
        "typed_config": typed(
            "extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig",
            forward_reason_phrase=True,
        ),
    }
}
HTTP1: Json = {"header_key_format": _KEEP_HEADER_CASE, "enable_trailers": True}
HTTP2: Json = {
    "initial_stream_window_size": _STREAM_WINDOW,
    "initial_connection_window_size": _CONNECTION_WINDOW,
}


def clusters(
    sidecar: Sidecar, active_faults: int, workers: Mapping[str, HostPort], ca: Mapping[str, str]
) -> list[Json]:
    """Return the clusters of all listeners that Envoy serves.

    Args:
        sidecar: The model of sidecar.yaml.
        active_faults: How many delays may be active in all of Envoy's threads.
        workers: The addresses of the workers, by the name of each listener with detours.
        ca: The path of the file that verifies https upstreams, by the name of each listener.
    """
    found = [_delay_cluster(active_faults)]
    for name, listener in sidecar.listeners.items():
        if served_by_workers(listener):
            continue
        own = upstream(name, listener, sidecar.limits, ca[name])
        found.append(own)
        if listener.scheme == "https":
            found.append({**own, "name": http1_cluster(name), **_protocol({"http1": HTTP1})})
        if name in workers:
            found += _detour(name, listener, sidecar.limits, workers[name])
    return found


def upstream(name: str, listener: Listener, limits: Limits, ca: str) -> Json:
    """Return the cluster of a listener's upstreams; it speaks the client's HTTP if it can."""
    nodes = [upstream_address(url) for url in listener.upstream]
    cluster = _cluster(name, nodes, limits.connect)
    several = sticky(listener)
    if listener.scheme == "https":
        protocol = {"auto": {"http_protocol_options": HTTP1, "http2_protocol_options": HTTP2}}
        cluster |= _tls(ca)
    elif listener.tls is not None:
        protocol = {"http1": HTTP1}
    else:
        protocol = {"same": {"http_protocol_options": HTTP1, "http2_protocol_options": HTTP2}}
    return {**cluster, **_protocol(protocol, several), **(_sticky_options() if several else {})}


def _cluster(name: str, nodes: list[HostPort], connect_seconds: float) -> Json:
    most = {
        f"max_{what}": _UNBOUNDED
        for what in ("connections", "pending_requests", "requests", "retries")
    }
    return {
        "name": name,
        "type": "STATIC" if all_ips(nodes) else "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": json_duration(connect_seconds),
        "circuit_breakers": {"thresholds": [{**most}, {"priority": "HIGH", **most}]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": _endpoint(n)} for n in nodes]}],
        },
    }


def _endpoint(node: HostPort) -> Json:
    address = {"socket_address": {"address": node[0], "port_value": node[1]}}
    return {"address": address, "hostname": node[0]}


def _sticky_options() -> Json:
    """Return the options of several nodes: a unit keeps one, and uses the next while it is down."""
    off = ("consecutive_5xx", "consecutive_gateway_failure", "success_rate")
    return {
        "lb_policy": "RING_HASH",
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}},
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_local_origin_success_rate": 0,
            **{f"enforcing_{what}": 0 for what in off},
            "base_ejection_time": json_duration(_EJECTION_SECONDS),
            "max_ejection_time": json_duration(_EJECTION_SECONDS),
            "interval": "0.25s",
            "max_ejection_percent": 100,
        },
    }


def _protocol(kind: Json, several: bool = False) -> Json:
    match kind:
        case {"auto": options}:
            message: Json = {"auto_config": options}
        case {"same": options}:
            message = {"use_downstream_protocol_config": options}
        case _:
            message = {"explicit_http_config": {"http_protocol_options": kind["http1"]}}
    if several:
        message["http_filters"] = [_remove_header(STICKY_HEADER), _CODEC]
    message["common_http_protocol_options"] = {
        "idle_timeout": json_duration(_UPSTREAM_IDLE_SECONDS)
    }
    options = typed("extensions.upstreams.http.v3.HttpProtocolOptions", **message)
    return {"typed_extension_protocol_options": {_OPTIONS: options}}


_CODEC = {
    "name": "envoy.filters.http.upstream_codec",
    "typed_config": typed("extensions.filters.http.upstream_codec.v3.UpstreamCodec"),
}


def _remove_header(header: str) -> Json:
    mutations = {"request_mutations": [{"remove": header}]}
    kind = "extensions.filters.http.header_mutation.v3.HeaderMutation"
    config = typed(kind, mutations=mutations)
    return {"name": "envoy.filters.http.header_mutation", "typed_config": config}


def _tls(ca: str) -> Json:
    validation = {"trusted_ca": {"filename": ca}}
    context = typed(
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        auto_host_sni=True,
        auto_sni_san_validation=True,
        common_tls_context={
            "validation_context": validation,
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        },
    )
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}}


def _detour(name: str, listener: Listener, limits: Limits, workers: HostPort) -> list[Json]:
    """Return a cluster of the workers, and one that falls back to the upstream without them."""
    both: Json = {"http_protocol_options": HTTP1, "http2_protocol_options": HTTP2}
    # To a cleartext upstream, workers speak the HTTP version in which Envoy speaks to them.
    plain = listener.scheme == "http" and listener.tls is not None
    protocol: Json = {"http1": HTTP1} if plain else {"same": both}
    cluster = _cluster(workers_cluster(name), [workers], min(limits.connect, 1.0))
    own = {**cluster, **_protocol(protocol)}
    kind = typed("extensions.clusters.aggregate.v3.ClusterConfig", clusters=[own["name"], name])
    detour = {
        "name": detour_cluster(name),
        "connect_timeout": own["connect_timeout"],
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": kind},
    }
    return [own, detour]


def _delay_cluster(active_faults: int) -> Json:
    """Return the cluster of the delay server, which never responds: each time-out is a delay."""
    cluster = _cluster(DELAY_CLUSTER, [], 1.0)
    thresholds = cluster["circuit_breakers"]["thresholds"]
    thresholds[0]["max_requests"] = active_faults
    pipe = {"endpoint": {"address": {"pipe": {"path": DELAY_SOCKET}}}}
    cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": [pipe]}]
    return cluster
