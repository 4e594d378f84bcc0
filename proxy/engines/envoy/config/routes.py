"""Where a listener's requests go, with the program that decides it: what each reload swaps."""

from dataclasses import dataclass
from typing import Any

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.engines.envoy.config.lua_program import STICKY
from counterfault.proxy.engines.envoy.config.names import (
    CUT,
    DROP_FILTER,
    HTTP,
    LUA_FILTER,
    NONE,
    PROTO,
    Json,
    detour_of,
    http1_of,
    present,
    typed,
)
from counterfault.proxy.engines.envoy.config.upstream_addresses import sticky

# How often the ring is asked for another node; with two, each time it is this one by half.
_DRAWS = 30
_BY_UNIT: list[Json] = [{"header": {"header_name": STICKY}}]
# What cannot have had an effect may be tried once more.
_UNTOUCHED = "connect-failure,refused-stream"


@dataclass(frozen=True, slots=True)
class Program:
    """What runs for a listener's requests, and a predicate of those that it runs for; None: all."""

    source: str
    asked: Json | None
    detour: bool
    """Whether a request may have to take one."""
    drop: bool


def routes(name: str, listener: Listener, program: Program) -> Json:
    lua = typed(
        "extensions.filters.http.lua.v3.LuaPerRoute", source_code={"inline_string": program.source}
    )
    filters: Json = {LUA_FILTER: lua}
    if program.drop or program.detour:
        filters[DROP_FILTER] = _switched(on=True)
    direct = _direct(name, listener)
    own = [*([_detour(name)] if program.detour else []), *direct]
    host = {
        "name": name,
        "domains": ["*"],
        "typed_per_filter_config": filters,
        # Only a detour's answer is cut; others may have been answered so by their upstream.
        "response_headers_to_remove": [CUT],
        **_chosen(own, direct, program.asked, filters),
    }
    if listener.scheme == "https":
        host["request_headers_to_remove"] = [HTTP]
    return typed(
        "config.route.v3.RouteConfiguration",
        name=name,
        validate_clusters=True,
        virtual_hosts=[host],
    )


def _chosen(own: list[Json], others: list[Json], asked: Json | None, filters: Json) -> Json:
    """For those who are asked about, and for all others: routes on which nothing of ours runs."""
    if asked is None:
        return {"routes": [made for route in own for made in _as_it_came(route)]}
    off = {name: _switched(on=False) for name in filters}
    others = [{**route, "typed_per_filter_config": off} for route in others]
    return {
        "matcher": {
            "matcher_list": {
                "matchers": [{"predicate": asked, "on_match": {"action": _list(own)}}]
            },
            "on_no_match": {"action": _list(others)},
        }
    }


def _list(routes: list[Json]) -> Json:
    came = [made for route in routes for made in _as_it_came(route)]
    return {"name": "routes", "typed_config": typed("config.route.v3.RouteList", routes=came)}


def _switched(*, on: bool) -> Json:
    return typed("config.route.v3.FilterConfig", config={}, disabled=not on)


def _as_it_came(route: Json) -> list[Json]:
    """A route for requests without the header that Envoy would add, and one for the others."""
    match = route["match"]
    marked = {"name": PROTO, "string_match": {"exact": NONE}}
    bare = {**match, "headers": [*match.get("headers", ()), marked]}
    return [{**route, "match": bare, "request_headers_to_remove": [PROTO]}, route]


def _direct(name: str, listener: Listener) -> list[Json]:
    several: Json = {}
    if sticky(listener):
        several = {"hash_policy": _BY_UNIT, "retry_policy": _next_node()}
    found = []
    if listener.scheme == "https":
        http1 = {"name": HTTP, "string_match": {"prefix": "HTTP/1"}}
        found.append(_route({"prefix": "/", "headers": [http1]}, http1_of(name), several))
    return [*found, _route({"prefix": "/"}, name, several)]


def _detour(name: str) -> Json:
    again = _once_more()
    again["retry_priority"] = {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": typed(
            "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            update_frequency=1,
        ),
    }
    match = {"prefix": "/", "dynamic_metadata": [present("detour")]}
    return _route(match, detour_of(name), {"retry_policy": again, "hash_policy": _BY_UNIT})


def _route(match: Json, cluster: str, more: Json) -> Json:
    action: dict[str, Any] = {"cluster": cluster, "timeout": "0s", **more}
    return {"match": match, "route": action}


def _once_more() -> Json:
    backoff = {"base_interval": "0.001s", "max_interval": "0.002s"}
    return {"retry_on": _UNTOUCHED, "num_retries": 1, "retry_back_off": backoff}


def _next_node() -> Json:
    again = _once_more()
    again["retry_host_predicate"] = [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": typed("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
        }
    ]
    again["host_selection_retry_max_attempts"] = _DRAWS
    return again
