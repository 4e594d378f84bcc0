"""What an Envoy process starts with; a change of it needs a new process (a hot restart)."""

from counterfault.proxy.config.sidecar import Limits, Sidecar
from counterfault.proxy.engines.envoy.config.histogram_buckets import BUCKETS
from counterfault.proxy.engines.envoy.config.names import (
    ADMIN_SOCKET,
    CLUSTERS_FILE,
    LEAVE_FILE,
    LISTENERS_FILE,
    NAMESPACE,
    Json,
    json_duration,
    typed,
    watched_file,
)

# Seconds between two times at which Envoy merges its histograms.
_FLUSH = 0.5
# Seconds in which Envoy notices that it drains, and after which a silent client is idle then.
_REFRESH, _IDLE_WHILE_DRAINING = 0.25, 0.5
_DRAIN_MONITOR = "envoy.resource_monitors.injected_resource"


def bootstrap(sidecar: Sidecar) -> Json:
    """Return the configuration with which the Envoy process starts."""
    return {
        "node": {"id": sidecar.service, "cluster": NAMESPACE},
        "admin": {"address": {"pipe": {"path": ADMIN_SOCKET, "mode": 0o600}}},
        "dynamic_resources": {
            "cds_config": watched_file(CLUSTERS_FILE),
            "lds_config": watched_file(LISTENERS_FILE),
        },
        "stats_flush_interval": json_duration(_FLUSH),
        "stats_config": {
            "histogram_bucket_settings": [
                {
                    "match": {"prefix": f"{NAMESPACE}."},
                    "buckets": list(BUCKETS),
                }
            ]
        },
        "overload_manager": _overload(sidecar.limits),
    }


def _overload(limits: Limits) -> Json:
    """Return the overload manager: it bounds connections, and closes idle ones during the drain.

    While it drains, Envoy would keep idle clients and cut them off when it ends. But it can
    shorten time-outs under overload, and LEAVE_FILE is a resource whose pressure we set. So idle
    connections time out soon, and an HTTP/2 client gets a GOAWAY first.
    """
    most = typed(
        "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=limits.connections,
    )
    leave = typed(
        "extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig",
        filename=f"./{LEAVE_FILE}",
    )
    scaled = {
        "timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE",
        "min_timeout": json_duration(_IDLE_WHILE_DRAINING),
    }
    shorter = typed(
        "config.overload.v3.ScaleTimersOverloadActionConfig", timer_scale_factors=[scaled]
    )
    return {
        "refresh_interval": json_duration(_REFRESH),
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": most,
            },
            {"name": _DRAIN_MONITOR, "typed_config": leave},
        ],
        "actions": [
            {
                "name": "envoy.overload_actions.reduce_timeouts",
                "triggers": [{"name": _DRAIN_MONITOR, "threshold": {"value": 1.0}}],
                "typed_config": shorter,
            }
        ],
    }
