"""Compiles a configuration and the runs into Envoy's configuration; same input, same output.

clusters, listeners   the content of sidecar.yaml; swapped when that changes
routes                one for each listener, with the Lua program; swapped when a run changes state
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.config.model import Config
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines.envoy.config import lua_program, native_faults
from counterfault.proxy.engines.envoy.config.bystander_filter import maybe_enrolled
from counterfault.proxy.engines.envoy.config.clusters import clusters
from counterfault.proxy.engines.envoy.config.listeners import listeners
from counterfault.proxy.engines.envoy.config.names import (
    CLUSTERS_FILE,
    LISTENERS_FILE,
    Json,
    routes_file,
    typed,
)
from counterfault.proxy.engines.envoy.config.routes import Program, routes
from counterfault.proxy.engines.envoy.config.upstream_addresses import sticky
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import LIVE, State
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.values.addresses import HostPort


@dataclass(frozen=True, slots=True)
class HostInputs:
    """What the compiler needs from the host.

    Attributes:
        workers: The addresses of workers, by the name of each listener whose detours they serve.
        tls: The PEM text of certificate and key, by the name of each listener with TLS.
        ca: The path of the file that verifies https upstreams, by the name of each listener.
    """

    workers: Mapping[str, HostPort]
    tls: Mapping[str, tuple[str, str]]
    ca: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CompiledConfig:
    """The resources of one version of Envoy's configuration.

    Attributes:
        clusters: The clusters.
        listeners: The listeners.
        routes: The routes, by the name of their listener.
    """

    clusters: list[Json]
    listeners: list[Json]
    routes: Mapping[str, Json]

    def files(self) -> dict[str, Json]:
        """Return the content of each file as Envoy reads it, but without a version."""
        found = {CLUSTERS_FILE: self._cluster_messages(), LISTENERS_FILE: self.listeners}
        found |= {routes_file(name): [made] for name, made in self.routes.items()}
        return {file: {"resources": resources} for file, resources in found.items()}

    def _cluster_messages(self) -> list[Json]:
        return [typed("config.cluster.v3.Cluster", **cluster) for cluster in self.clusters]


def compile_config(
    config: Config, runs: Mapping[str, RunStatus], host: HostInputs
) -> CompiledConfig:
    """Compile a configuration and its runs.

    Args:
        config: The configuration.
        runs: The status of each run, by the name of its experiment.
        host: What the host contributes.
    """
    sidecar = config.sidecar
    # An experiment enrolls no unit until workers listen wherever its requests take detours.
    there = native_faults.worker_listeners(sidecar) | host.workers.keys()
    reachable = tuple(e for e in config.experiments if native_faults.detours(e).keys() <= there)
    limits = sidecar.limits.model_copy(update={"active_faults": split_active_faults(config)[0]})
    bounded = sidecar.model_copy(update={"limits": limits})
    made: dict[str, Json] = {}
    for name, listener in sidecar.listeners.items():
        if native_faults.served_by_workers(listener):
            continue
        live = [e for e in reachable if e.name in runs and runs[e.name].state in LIVE]
        detour = name in host.workers and any(name in native_faults.detours(e) for e in live)
        drop = any(_drops(e, name) for e in live if runs[e.name].state is State.RUNNING)
        source = lua_program.source(bounded, name, {"arms": lua_program.arms(name, live, runs)})
        program = Program(source, _program_applies_to(sidecar, listener, live), detour, drop)
        made[name] = routes(name, listener, program)
    # Each of Envoy's threads checks the bound by itself and may exceed it by one request.
    delays = limits.active_faults and max(1, limits.active_faults - (sidecar.workers - 1))
    return CompiledConfig(
        clusters(sidecar, delays, host.workers, host.ca), listeners(sidecar, host.tls), made
    )


def _program_applies_to(
    sidecar: Sidecar, listener: Listener, live: Iterable[Experiment]
) -> Json | None:
    if sticky(listener):
        return None  # the program hands the unit of every request to Envoy's ring
    return maybe_enrolled(sidecar.unit, [e.arcs for e in live])


def _drops(e: Experiment, listener: str) -> bool:
    if listener in native_faults.detours(e):
        return False
    made = (native_faults.native_fault(rule) for rule in e.faults if rule.at == listener)
    return any(
        isinstance(p, native_faults.NativeDrop)
        or (isinstance(p, native_faults.NativeDelay) and p.drop)
        for p in made
    )


def split_active_faults(config: Config) -> tuple[int, int]:
    """Split `limits.active_faults` between Envoy and its workers.

    Returns the share of Envoy and the share of the workers; their sum is the limit.
    """
    most = config.sidecar.limits.active_faults
    running = [e for e in config.experiments if e.state == "running"]
    served = native_faults.worker_listeners(config.sidecar)
    in_workers = {
        at in served or at in native_faults.detours(e)
        for e in running
        for at in {rule.at for rule in e.faults}
    }
    if True not in in_workers:
        return most, 0
    return (most // 2, most - most // 2) if False in in_workers else (0, most)
