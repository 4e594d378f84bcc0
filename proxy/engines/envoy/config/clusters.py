"""A listener's upstreams as Envoy's clusters, and where workers wait for its detours."""

from collections.abc import Mapping

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.config.sidecar import Limits, Sidecar
from counterfault.proxy.engines.envoy.config.lua_program import STICKY
from counterfault.proxy.engines.envoy.config.names import (
    HOLD,
    HOLD_CLUSTER,
    Json,
    detour_of,
    http1_of,
    seconds,
    typed,
    workers_of,
)
from counterfault.proxy.engines.envoy.config.native_faults import by_workers
from counterfault.proxy.engines.envoy.config.upstream_addresses import all_ips, sticky
from counterfault.proxy.values.addresses import HostPort, upstream_address

_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# Envoy's own bounds (1024 of each) would fail traffic; `limits.connections` bounds all of it.
_UNBOUNDED = 1 << 30
# Servers close what is idle for five seconds or more; we do it before they can.
_UPSTREAM_IDLE = 4.0
# A node that refused is asked again after this many seconds; others bear its users meanwhile.
_DOWN_FOR = 1.0
_WINDOW, _WINDOWS = 1 << 20, 16 << 20
_CASE = {
    "stateful_formatter": {
        "name": "preserve_case",
        "typed_config": typed(
            "extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig",
            forward_reason_phrase=True,
        ),
    }
}
HTTP1: Json = {"header_key_format": _CASE, "enable_trailers": True}
HTTP2: Json = {
    "initial_stream_window_size": _WINDOW,
    "initial_connection_window_size": _WINDOWS,
}


def clusters(
    sidecar: Sidecar, active_faults: int, workers: Mapping[str, HostPort], ca: Mapping[str, str]
) -> list[Json]:
    """`workers`: where the listeners' workers are; `ca`: files that verify https upstreams."""
    found = [_hold(active_faults)]
    for name, listener in sidecar.listeners.items():
        if by_workers(listener):
            continue
        own = upstream(name, listener, sidecar.limits, ca[name])
        found.append(own)
        if listener.scheme == "https":
            found.append({**own, "name": http1_of(name), **_protocol({"http1": HTTP1})})
        if name in workers:
            found += _detour(name, listener, sidecar.limits, workers[name])
    return found


def upstream(name: str, listener: Listener, limits: Limits, ca: str) -> Json:
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
    return {**cluster, **_protocol(protocol, several), **(_spread() if several else {})}


def _cluster(name: str, nodes: list[HostPort], connect: float) -> Json:
    most = {
        f"max_{what}": _UNBOUNDED
        for what in ("connections", "pending_requests", "requests", "retries")
    }
    return {
        "name": name,
        "type": "STATIC" if all_ips(nodes) else "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": seconds(connect),
        "circuit_breakers": {"thresholds": [{**most}, {"priority": "HIGH", **most}]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": _endpoint(n)} for n in nodes]}],
        },
    }


def _endpoint(node: HostPort) -> Json:
    address = {"socket_address": {"address": node[0], "port_value": node[1]}}
    return {"address": address, "hostname": node[0]}


def _spread() -> Json:
    """Several nodes: one for each unit, the next one on the ring while it is down."""
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
            "base_ejection_time": seconds(_DOWN_FOR),
            "max_ejection_time": seconds(_DOWN_FOR),
            "interval": "0.25s",
            "max_ejection_percent": 100,
        },
    }


def _protocol(kind: Json, several: bool = False) -> Json:
    match kind:
        case {"auto": options}:
            said: Json = {"auto_config": options}
        case {"same": options}:
            said = {"use_downstream_protocol_config": options}
        case _:
            said = {"explicit_http_config": {"http_protocol_options": kind["http1"]}}
    if several:
        said["http_filters"] = [_without(STICKY), _CODEC]
    said["common_http_protocol_options"] = {"idle_timeout": seconds(_UPSTREAM_IDLE)}
    options = typed("extensions.upstreams.http.v3.HttpProtocolOptions", **said)
    return {"typed_extension_protocol_options": {_OPTIONS: options}}


_CODEC = {
    "name": "envoy.filters.http.upstream_codec",
    "typed_config": typed("extensions.filters.http.upstream_codec.v3.UpstreamCodec"),
}


def _without(header: str) -> Json:
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
    """The workers first; the upstream itself as soon as they cannot be reached."""
    both: Json = {"http_protocol_options": HTTP1, "http2_protocol_options": HTTP2}
    # Workers speak to a cleartext upstream what they are spoken to.
    plain = listener.scheme == "http" and listener.tls is not None
    protocol: Json = {"http1": HTTP1} if plain else {"same": both}
    own = {**_cluster(workers_of(name), [workers], min(limits.connect, 1.0)), **_protocol(protocol)}
    kind = typed("extensions.clusters.aggregate.v3.ClusterConfig", clusters=[own["name"], name])
    detour = {
        "name": detour_of(name),
        "connect_timeout": own["connect_timeout"],
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": kind},
    }
    return [own, detour]


def _hold(active_faults: int) -> Json:
    """Where nobody ever answers: a request to it that times out is a delay."""
    cluster = _cluster(HOLD_CLUSTER, [], 1.0)
    thresholds = cluster["circuit_breakers"]["thresholds"]
    thresholds[0]["max_requests"] = active_faults
    pipe = {"endpoint": {"address": {"pipe": {"path": HOLD}}}}
    cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": [pipe]}]
    return cluster
