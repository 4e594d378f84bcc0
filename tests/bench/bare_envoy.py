"""Envoy as its users run it for fault injection: a route by header with its own fault filter."""

from typing import Any
from urllib.parse import urlsplit

from counterfault.proxy.engines.envoy.config.names import typed

_FAULT = "extensions.filters.http.fault.v3.HTTPFault"


def configuration(port: int, upstream: str) -> dict[str, Any]:
    """A bootstrap with one listener; nobody in the benchmark meets the fault."""
    to = {"cluster": "up", "timeout": "0s"}
    delay = {"fixed_delay": "1s", "percentage": {"numerator": 100}}
    faulty = {
        "match": {"prefix": "/", "headers": [{"name": "x-arm", "present_match": True}]},
        "route": to,
        "typed_per_filter_config": {"envoy.filters.http.fault": typed(_FAULT, delay=delay)},
    }
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="in",
        route_config={
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [faulty, {"match": {"prefix": "/"}, "route": to}],
                }
            ]
        },
        http_filters=[
            {"name": "envoy.filters.http.fault", "typed_config": typed(_FAULT)},
            {
                "name": "envoy.filters.http.router",
                "typed_config": typed("extensions.filters.http.router.v3.Router"),
            },
        ],
    )
    node = urlsplit(upstream)
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": _address("127.0.0.1", port),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "up",
                    "type": "STATIC",
                    "load_assignment": {
                        "cluster_name": "up",
                        "endpoints": [
                            {
                                "lb_endpoints": [
                                    {
                                        "endpoint": {
                                            "address": _address(
                                                node.hostname or "", node.port or 80
                                            )
                                        }
                                    }
                                ]
                            }
                        ],
                    },
                }
            ],
        }
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
