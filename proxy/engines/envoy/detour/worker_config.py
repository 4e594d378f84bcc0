"""The configuration of the workers behind Envoy, and which of their counts are reported.

Workers serve the detours of Envoy's listeners, and listeners that Envoy cannot serve.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from counterfault.proxy.config.model import Config
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines.envoy.config import native_faults
from counterfault.proxy.engines.envoy.config.compiler import split_active_faults
from counterfault.proxy.measurement.keys import (
    DoseKey,
    DurationKey,
    DurationSumKey,
    FaultKey,
    InternalErrorKey,
    Key,
    OpenKey,
    RateKey,
    RequestKey,
    Rows,
    SteadyKey,
)
from counterfault.proxy.values.addresses import HostPort

_LOOPBACK = "127.0.0.1"


def detoured_listeners(config: Config) -> frozenset[str]:
    """Return the listeners of Envoy some of whose requests may go through workers."""
    running = (e for e in config.experiments if e.state == "running")
    detours = frozenset(at for e in running for at in native_faults.detours(e))
    return detours - native_faults.worker_listeners(config.sidecar)


def worker_config(config: Config, ports: Mapping[str, HostPort]) -> Config | None:
    """Return the configuration of the workers; None if no worker is needed.

    Workers trust the cohort tags that Envoy sends, since they listen for Envoy on loopback.

    Args:
        config: The configuration.
        ports: The addresses on which workers listen already, by listener.
    """
    served = native_faults.worker_listeners(config.sidecar)
    needed = served | detoured_listeners(config)
    if not needed:
        return None
    raw = {**config.raw_sidecar, "engine": "mitmproxy"}
    raw.pop("envoy", None)
    raw["listeners"] = {
        name: dict(listener) if name in served else _detour_listener(name, listener, ports)
        for name, listener in config.raw_sidecar["listeners"].items()
        if name in needed
    }
    limits = {**raw.get("limits", {}), "active_faults": split_active_faults(config)[1]}
    if served:
        limits["active_faults"] = max(1, limits["active_faults"])
    raw["limits"] = limits
    return replace(config, sidecar=Sidecar.model_validate(raw), raw_sidecar=raw)


def _detour_listener(
    name: str, listener: Mapping[str, Any], ports: Mapping[str, HostPort]
) -> dict[str, Any]:
    """Return the settings of a listener on loopback that serves the detours of Envoy's."""
    _, port = ports.get(name, (_LOOPBACK, 0))
    plain = {key: value for key, value in listener.items() if key != "tls"}
    return {**plain, "listen": f"{_LOOPBACK}:{port}", "trust": [f"{_LOOPBACK}/32"]}


def counted_by_workers(config: Config) -> Callable[[Key], bool]:
    """Return a predicate of the workers' counts that are reported.

    Faults and errors of workers are. Exchanges are only at listeners that workers serve alone: at
    the others Envoy counts them too, and sees each exchange from its begin to its end.
    """
    served = native_faults.worker_listeners(config.sidecar)
    metrics = {(e.name, m.name): m.at for e in config.experiments for m in e.steady_state}

    def is_reported(key: Key) -> bool:
        match key:
            case FaultKey() | DoseKey() | InternalErrorKey():
                return True
            case RequestKey() | DurationKey() | DurationSumKey():
                return key.listener in served
            case OpenKey():
                names = key.metrics.split(",")
                return any(metrics.get((key.experiment, name)) in served for name in names)
            case SteadyKey() | RateKey():
                return metrics.get((key.experiment, key.metric)) in served
            case _:
                return bool(served)

    return is_reported


def rows_of_workers(config: Config, rows: Rows) -> Rows:
    """Return the counts that only the workers report: `counted_by_workers` says which."""
    keep = counted_by_workers(config)
    return [(key, value) for key, value in rows if keep(key)]
