"""What parts of Envoy's configuration call each other, and the files in its directory."""

from typing import Any

type Json = dict[str, Any]

# Paths are relative to the directory in which Envoy runs, since a socket's must be short.
BOOTSTRAP = "bootstrap.json"
ADMIN = "admin.sock"
HOLD = "hold.sock"
LINES = "lines"
LEASE = "lease"
# Whether idle clients are to be let go: 0 or 1.
LEAVE = "leave"
# `live` is a link to the present version: one rename swaps all files of it.
CONFIG, LIVE = "config", "config/live"
CLUSTERS, LISTENERS = "clusters.json", "listeners.json"

# Metadata by which the Lua program tells the other filters what it has found.
SPACE = "counterfault"
HOLD_CLUSTER = "counterfault-hold"
LUA_FILTER = "envoy.filters.http.lua"
DROP_FILTER = "counterfault.drop"
# On an answer of Envoy's own: workers, or the upstream, have cut the exchange.
CUT = "x-counterfault-cut"
# A header that Envoy adds to every request, and its value where there was none.
PROTO, NONE = "x-forwarded-proto", "-"
# The HTTP that a client speaks, for the routes to an upstream that is spoken to in the same.
HTTP = "x-counterfault-http"
# Headers by which a client could make Envoy try again or give up.
INSTRUCTIONS = (
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
)

_TYPES = "type.googleapis.com/"


def typed(kind: str, **fields: Any) -> Json:
    """A message with its type, as `typed_config` wants it."""
    return {"@type": f"{_TYPES}envoy.{kind}", **fields}


def routes_file(listener: str) -> str:
    return f"routes-{listener}.json"


def watched(file: str) -> Json:
    """Where Envoy finds a resource, read again when `live` is renamed."""
    source = {"path": f"{LIVE}/{file}", "watched_directory": {"path": CONFIG}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def detour_of(listener: str) -> str:
    """The cluster of a listener's workers, with the upstream behind them."""
    return f"{listener}:detour"


def workers_of(listener: str) -> str:
    return f"{listener}:workers"


def http1_of(listener: str) -> str:
    """The upstream of a listener for clients that speak HTTP/1."""
    return f"{listener}:http1"


def seconds(duration: float) -> str:
    return f"{duration:.9f}".rstrip("0").rstrip(".") + "s"


def present(key: str) -> Json:
    """A matcher for metadata that the Lua program has set."""
    return {"filter": SPACE, "path": [{"key": key}], "value": {"present_match": True}}
