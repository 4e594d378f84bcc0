"""Names that parts of Envoy's configuration share, and the files in its run directory."""

from typing import Any

type Json = dict[str, Any]

# Paths are relative to the directory in which Envoy runs, because a Unix socket's path must be
# short.
BOOTSTRAP_FILE = "bootstrap.json"
ADMIN_SOCKET = "admin.sock"
DELAY_SOCKET = "hold.sock"
LINES_PIPE, BEGINS_PIPE = "lines", "begins"
LEASE_FILE = "lease"
# Holds 1 while Envoy drains and closes idle connections, else 0.
LEAVE_FILE = "leave"
# Each version of the configuration is a directory in VERSIONS_DIR. LIVE_LINK points to the present
# one, so that one rename swaps all its files.
VERSIONS_DIR, LIVE_LINK = "config", "config/live"
CLUSTERS_FILE, LISTENERS_FILE = "clusters.json", "listeners.json"

# The namespace of the metadata that the Lua program sets, and the prefix of our own counters.
NAMESPACE = "counterfault"
DELAY_CLUSTER = "counterfault-hold"
LUA_FILTER = "envoy.filters.http.lua"
DROP_FILTER = "counterfault.drop"
# Envoy puts this header on its own response when a worker, or the upstream behind it, has closed
# the connection of a detour without a response.
CUT_HEADER = "x-counterfault-cut"
# A header that Envoy adds to every request, and the value that marks one that was not there.
PROTO_HEADER, NO_PROTO = "x-forwarded-proto", "-"
# The client's HTTP version, so that a route can speak the same version to the upstream.
HTTP_VERSION_HEADER = "x-counterfault-http"
# Headers by which a client could make Envoy retry or time out.
INSTRUCTION_HEADERS = (
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
)

_TYPES = "type.googleapis.com/"


def typed(kind: str, **fields: Any) -> Json:
    """Return a protobuf message of the type `envoy.{kind}`, as `typed_config` requires it."""
    return {"@type": f"{_TYPES}envoy.{kind}", **fields}


def routes_file(listener: str) -> str:
    """Return the name of the file with a listener's routes."""
    return f"routes-{listener}.json"


def watched_file(file: str) -> Json:
    """Return a config source: a file that Envoy reads again whenever LIVE_LINK is renamed."""
    source = {"path": f"{LIVE_LINK}/{file}", "watched_directory": {"path": VERSIONS_DIR}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def detour_cluster(listener: str) -> str:
    """Return the name of the cluster that tries a listener's workers, then its upstream."""
    return f"{listener}:detour"


def workers_cluster(listener: str) -> str:
    """Return the name of the cluster of a listener's workers."""
    return f"{listener}:workers"


def http1_cluster(listener: str) -> str:
    """Return the name of the cluster that speaks HTTP/1 to a listener's https upstream."""
    return f"{listener}:http1"


def json_duration(seconds: float) -> str:
    """Return seconds as protobuf's JSON writes a Duration, such as `0.25s`."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def metadata_present(key: str) -> Json:
    """Return a matcher of the requests for which the Lua program has set this metadata."""
    return {"filter": NAMESPACE, "path": [{"key": key}], "value": {"present_match": True}}


def logged_if_present(key: str) -> Json:
    """Return an access-log filter that passes the requests with this metadata."""
    return {"metadata_filter": {"matcher": metadata_present(key), "match_if_key_not_found": False}}
