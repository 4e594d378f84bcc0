"""A listener's routes with its Lua program: what changes with each reload and turn of a run."""

from dataclasses import dataclass
from typing import Any

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.engines.envoy.config.lua_program import STICKY_HEADER
from counterfault.proxy.engines.envoy.config.names import (
    CUT_HEADER,
    DROP_FILTER,
    HTTP_VERSION_HEADER,
    LUA_FILTER,
    NO_PROTO,
    PROTO_HEADER,
    Json,
    detour_cluster,
    http1_cluster,
    metadata_present,
    typed,
)
from counterfault.proxy.engines.envoy.config.upstream_addresses import sticky

# How often Envoy draws a node for a retry until it is another one; of two nodes, each draw is the
# failed one with probability 1/2.
_MOST_DRAWS = 30
_BY_UNIT: list[Json] = [{"header": {"header_name": STICKY_HEADER}}]
# Failures after which the request cannot have had an effect, so that a retry is safe.
_SAFE_TO_RETRY = "connect-failure,refused-stream"


@dataclass(frozen=True, slots=True)
class Program:
    """What runs for a listener's requests.

    Attributes:
        source: The Lua program.
        applies_to: A predicate of the requests that the program runs for; None for all of them.
        detour: Whether some requests take a detour through workers.
        drop: Whether some requests are dropped.
    """

    source: str
    applies_to: Json | None
    detour: bool
    drop: bool


def routes(name: str, listener: Listener, program: Program) -> Json:
    """Return the route configuration of a listener."""
    lua = typed(
        "extensions.filters.http.lua.v3.LuaPerRoute", source_code={"inline_string": program.source}
    )
    filters: Json = {LUA_FILTER: lua}
    if program.drop or program.detour:
        filters[DROP_FILTER] = _filter_switch(on=True)
    direct = _direct(name, listener)
    own = [*([_detour(name)] if program.detour else []), *direct]
    host = {
        "name": name,
        "domains": ["*"],
        "typed_per_filter_config": filters,
        # dropped.wasm has read the header by now; an upstream's own header of this name goes too.
        "response_headers_to_remove": [CUT_HEADER],
        **_routes_by_program(own, direct, program.applies_to, filters),
    }
    if listener.scheme == "https":
        host["request_headers_to_remove"] = [HTTP_VERSION_HEADER]
    return typed(
        "config.route.v3.RouteConfiguration",
        name=name,
        validate_clusters=True,
        virtual_hosts=[host],
    )


def _routes_by_program(
    own: list[Json], others: list[Json], applies_to: Json | None, filters: Json
) -> Json:
    """Return `own` routes for the requests that the program applies to, `others` for the rest.

    On the other routes none of our filters runs.
    """
    if applies_to is None:
        return {"routes": [made for route in own for made in _without_added_header(route)]}
    off = {name: _filter_switch(on=False) for name in filters}
    others = [{**route, "typed_per_filter_config": off} for route in others]
    return {
        "matcher": {
            "matcher_list": {
                "matchers": [{"predicate": applies_to, "on_match": {"action": _route_list(own)}}]
            },
            "on_no_match": {"action": _route_list(others)},
        }
    }


def _route_list(routes: list[Json]) -> Json:
    came = [made for route in routes for made in _without_added_header(route)]
    return {"name": "routes", "typed_config": typed("config.route.v3.RouteList", routes=came)}


def _filter_switch(*, on: bool) -> Json:
    return typed("config.route.v3.FilterConfig", config={}, disabled=not on)


def _without_added_header(route: Json) -> list[Json]:
    """Return a route that removes PROTO_HEADER where Envoy added it, and the route as it is."""
    match = route["match"]
    marked = {"name": PROTO_HEADER, "string_match": {"exact": NO_PROTO}}
    bare = {**match, "headers": [*match.get("headers", ()), marked]}
    return [{**route, "match": bare, "request_headers_to_remove": [PROTO_HEADER]}, route]


def _direct(name: str, listener: Listener) -> list[Json]:
    several: Json = {}
    if sticky(listener):
        several = {"hash_policy": _BY_UNIT, "retry_policy": _retry_on_next_node()}
    found = []
    if listener.scheme == "https":
        http1 = {"name": HTTP_VERSION_HEADER, "string_match": {"prefix": "HTTP/1"}}
        found.append(_route({"prefix": "/", "headers": [http1]}, http1_cluster(name), several))
    return [*found, _route({"prefix": "/"}, name, several)]


def _detour(name: str) -> Json:
    again = _one_retry()
    again["retry_priority"] = {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": typed(
            "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            update_frequency=1,
        ),
    }
    match = {"prefix": "/", "dynamic_metadata": [metadata_present("detour")]}
    return _route(match, detour_cluster(name), {"retry_policy": again, "hash_policy": _BY_UNIT})


def _route(match: Json, cluster: str, more: Json) -> Json:
    action: dict[str, Any] = {"cluster": cluster, "timeout": "0s", **more}
    return {"match": match, "route": action}


def _one_retry() -> Json:
    backoff = {"base_interval": "0.001s", "max_interval": "0.002s"}
    return {"retry_on": _SAFE_TO_RETRY, "num_retries": 1, "retry_back_off": backoff}


def _retry_on_next_node() -> Json:
    again = _one_retry()
    again["retry_host_predicate"] = [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": typed("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
        }
    ]
    again["host_selection_retry_max_attempts"] = _MOST_DRAWS
    return again
