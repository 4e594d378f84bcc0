"""Measures the requests per second at each listener of a sidecar that already runs."""

import time
from collections import Counter
from http.client import HTTPException

from prometheus_client.parser import text_string_to_metric_families

from counterfault.proxy.cli.admin_client import AdminClient, Refused
from counterfault.proxy.config.model import Config
from counterfault.proxy.values.addresses import host_port, is_loopback

_SERIES = "counterfault_requests_total"
_BETWEEN = 1.0
_PATIENCE = 1.0
# With fewer between two looks, the rate since the sidecar's start is the better guess.
_ENOUGH = 30


def present_rates(config: Config) -> dict[str, float]:
    """Return requests per second by listener; empty if no sidecar answers at the admin port."""
    admin = config.sidecar.admin
    host, port = host_port(admin.listen)
    if not is_loopback(host):
        return {}
    token = admin.token_file and config.directory / admin.token_file
    client = AdminClient(f"http://{f'[{host}]' if ':' in host else host}:{port}", token or None)
    try:
        uptime = float(client.ask("GET", "/api/experiments", _PATIENCE)["uptime"])
        before = _counted(client)
        time.sleep(_BETWEEN)
        after = _counted(client)
    except (Refused, OSError, HTTPException, ValueError, LookupError, TypeError):
        return {}
    since = uptime + _BETWEEN
    return {name: _rate(before[name], total, since) for name, total in after.items()}


def _rate(before: float, after: float, since: float) -> float:
    lately = after - before
    return lately / _BETWEEN if lately >= _ENOUGH else after / since


def _counted(client: AdminClient) -> Counter[str]:
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(client.ask("GET", "/metrics", _PATIENCE)):
        for sample in family.samples:
            if sample.name == _SERIES:
                found[sample.labels["listener"]] += int(sample.value)
    return found
