"""The workers behind Envoy: whoever takes a detour, and the listeners that Envoy cannot serve."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from counterfault.proxy.config.model import Config
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines.envoy.config import native_faults
from counterfault.proxy.engines.envoy.config.compiler import active_faults
from counterfault.proxy.measurement.keys import (
    DoseKey,
    DurationKey,
    DurationSumKey,
    FaultKey,
    InternalErrorKey,
    Key,
    RequestKey,
    Rows,
    SteadyKey,
)
from counterfault.proxy.values.addresses import HostPort

_LOOPBACK = "127.0.0.1"


def served(config: Config) -> frozenset[str]:
    """The listeners that workers serve by themselves."""
    return native_faults.served(config.sidecar)


def detoured(config: Config) -> frozenset[str]:
    """The listeners of which some requests may go through workers."""
    running = (e for e in config.experiments if e.state == "running")
    return frozenset(at for e in running for at in native_faults.detours(e)) - served(config)


def behind(config: Config, ports: Mapping[str, HostPort]) -> Config | None:
    """The configuration of the workers; None if there is nothing for them to do.

    `ports`: where they listen already. Envoy's tags are believed, since nobody else is to come.
    """
    needed = served(config) | detoured(config)
    if not needed:
        return None
    raw = {**config.raw_sidecar, "engine": "mitmproxy"}
    raw.pop("envoy", None)
    raw["listeners"] = {
        name: _own(name, listener, config, ports)
        for name, listener in config.raw_sidecar["listeners"].items()
        if name in needed
    }
    limits = {**raw.get("limits", {}), "active_faults": active_faults(config)[1]}
    if served(config):
        limits["active_faults"] = max(1, limits["active_faults"])
    raw["limits"] = limits
    return replace(config, sidecar=Sidecar.model_validate(raw), raw_sidecar=raw)


def _own(
    name: str, listener: Mapping[str, Any], config: Config, ports: Mapping[str, HostPort]
) -> dict[str, Any]:
    if name in served(config):
        return dict(listener)
    _, port = ports.get(name, (_LOOPBACK, 0))
    plain = {key: value for key, value in listener.items() if key != "tls"}
    return {**plain, "listen": f"{_LOOPBACK}:{port}", "trust": [f"{_LOOPBACK}/32"]}


def counted_by_workers(config: Config) -> Callable[[Key], bool]:
    """Which of the workers' counts are not Envoy's to tell: it sees each request's whole way."""
    own = served(config)
    metrics = {(e.name, m.name): m.at for e in config.experiments for m in e.steady_state}

    def is_theirs(key: Key) -> bool:
        match key:
            case FaultKey() | DoseKey() | InternalErrorKey():
                return True
            case RequestKey() | DurationKey() | DurationSumKey():
                return key.listener in own
            case SteadyKey():
                return metrics.get((key.experiment, key.metric)) in own
            case _:
                return bool(own)

    return is_theirs


def theirs(config: Config, rows: Rows) -> Rows:
    keep = counted_by_workers(config)
    return [(key, value) for key, value in rows if keep(key)]
