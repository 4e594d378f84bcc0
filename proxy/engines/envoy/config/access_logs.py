"""What Envoy records of exchanges: a line for each enrolled one, counters of all others."""

from counterfault.proxy.engines.envoy.config.names import (
    LINES_PIPE,
    NAMESPACE,
    Json,
    logged_if_present,
    metadata_present,
    typed,
)

# Microseconds to the last byte of the response, and to the first byte from the upstream.
WHOLE = "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"
ANSWERED = "%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:us)%"
# The fields of a line, in the order in which telemetry/access_log.py reads them.
FIELDS = (
    "%ACCESS_LOG_TYPE%",
    "%RESPONSE_CODE%",
    "%RESPONSE_FLAGS%",
    WHOLE,
    ANSWERED,
    "%DURATION%",
    "%UPSTREAM_REMOTE_ADDRESS%",
    f"%DYNAMIC_METADATA({NAMESPACE}:line)%",
)
# The log type of an upgraded connection (such as a WebSocket) at the time it is established.
ESTABLISHED = "DownstreamTunnelSuccessfullyEstablished"


def access_logs(listener: str) -> list[Json]:
    """Return the access logs of a listener.

    Enrolled exchanges are lines in LINES_PIPE, for the supervisor to count. Bystanders are too
    many for that, so that Envoy counts them; the supervisor asks its admin endpoint for the sums.
    """
    return [_lines(listener), _sums(listener), _upgrades(listener)]


def _lines(name: str) -> Json:
    line = "\t".join((name, *FIELDS)) + "\n"
    config = typed(
        "extensions.access_loggers.file.v3.FileAccessLog",
        path=LINES_PIPE,
        log_format={"text_format_source": {"inline_string": line}},
    )
    return {"name": "lines", "filter": logged_if_present("line"), "typed_config": config}


def _sums(name: str) -> Json:
    """Count a bystander's exchange when it ends; one that was upgraded has counted before."""
    upgraded = {"op": "NE", "value": {"default_value": 101, "runtime_key": "none"}}
    ended: list[Json] = [
        {"log_type_filter": {"types": [ESTABLISHED], "exclude": True}},
        {"status_code_filter": {"comparison": upgraded}},
    ]
    return _stats(name, WHOLE, ended)


def _upgrades(name: str) -> Json:
    """Count a bystander's upgraded connection when it is established."""
    return _stats(name, ANSWERED, [{"log_type_filter": {"types": [ESTABLISHED]}}])


def _stats(name: str, duration: str, which: list[Json]) -> Json:
    tags = [
        {"name": "code", "value_format": "%RESPONSE_CODE%"},
        {"name": "flags", "value_format": "%RESPONSE_FLAGS%"},
    ]
    duration_histogram = {
        "stat": {"name": "duration"},
        "unit": "Microseconds",
        "value_format": duration,
    }
    config = typed(
        "extensions.access_loggers.stats.v3.Config",
        stat_prefix=f"{NAMESPACE}.{name}",
        histograms=[duration_histogram],
        counters=[{"stat": {"name": "requests", "tags": tags}, "value_fixed": 1}],
    )
    bystanders = {
        "metadata_filter": {
            "matcher": {**metadata_present("line"), "value": {"string_match": {"exact": ""}}},
            "match_if_key_not_found": True,
        }
    }
    all_of = {"and_filter": {"filters": [*which, bystanders]}}
    return {"name": "stats", "filter": all_of, "typed_config": config}
