"""Envoy as a server that acts on one plan after another, with the ports that it needs."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from counterfault.proxy.config.model import Config
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines.envoy.config import native_faults
from counterfault.proxy.engines.envoy.config.bootstrap import bootstrap
from counterfault.proxy.engines.envoy.config.compiler import HostInputs, compile_config
from counterfault.proxy.engines.envoy.config.names import LISTENERS_FILE
from counterfault.proxy.engines.envoy.runtime.admin_client import EnvoyAdmin
from counterfault.proxy.engines.envoy.runtime.delivery import Delivery
from counterfault.proxy.engines.envoy.runtime.drain import drain
from counterfault.proxy.engines.envoy.runtime.process import EnvoyProcess
from counterfault.proxy.engines.envoy.runtime.run_directory import RunDirectory
from counterfault.proxy.engines.graceful_close import closing
from counterfault.proxy.engines.keeper import STOP_GRACE
from counterfault.proxy.engines.ports import PortTaken, why_taken
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.values.addresses import HostPort, host_port

log = logging.getLogger("counterfault")


class EnvoyServer:
    """The Envoy process together with its configuration and its ports."""

    def __init__(
        self,
        directory: RunDirectory,
        admin: EnvoyAdmin,
        process: EnvoyProcess,
        delivery: Delivery,
        gone: Callable[[str], None],
    ) -> None:
        """Prepare the server; `adopt` or `start` gives it a process.

        Args:
            directory: The run directory.
            admin: The admin endpoint.
            process: The process, which need not run yet.
            delivery: Delivers configurations to it.
            gone: Called with the incarnation of a process that was replaced.
        """
        self._directory, self._admin = directory, admin
        self._process, self._delivery = process, delivery
        self._gone = gone
        self._addresses: dict[str, HostPort] = {}

    def adopt(self, sidecar: Sidecar, *, serves: bool) -> None:
        """Take over the process that an earlier supervisor has left, if there is one.

        Args:
            sidecar: The model of sidecar.yaml; a process that was started otherwise is replaced.
            serves: Whether the process still listens; if it does not, it is replaced.
        """
        if self._process.adopt(bootstrap(sidecar), serves=serves):
            log.info("envoy (pid %d) is adopted", self._process.pid)
            self._addresses = self._live_addresses()

    def addresses_of(self, sidecar: Sidecar) -> dict[str, HostPort]:
        """Return the addresses that Envoy needs, by listener.

        Raises:
            PortTaken: Another process listens on one of them.
        """
        wanted = {
            name: host_port(listener.listen)
            for name, listener in sidecar.listeners.items()
            if not native_faults.served_by_workers(listener)
        }
        for name, address in wanted.items():
            if address[1] == 0 or address in self._addresses.values():
                continue
            if reason := why_taken(address):
                raise PortTaken(f"listener {name}: {address[0]}:{address[1]}: {reason}")
        return wanted

    def listen_on(self, addresses: dict[str, HostPort]) -> None:
        """Close all other ports with the next plan."""
        self._addresses = addresses

    def start(self, config: Config, runs: Mapping[str, RunStatus], host: HostInputs) -> None:
        """Start a process that acts on this plan from its start. Raises OSError."""
        self._delivery.place_for_start(compile_config(config, runs, host))
        self._process.start(bootstrap(config.sidecar))

    async def apply(self, config: Config, runs: Mapping[str, RunStatus], host: HostInputs) -> None:
        """Make the running process act on a plan; replace it if the plan needs that.

        Raises:
            ConfigRejected: Envoy keeps the plan before.
            OSError: The process does not run or answer yet; try again.
        """
        compiled = await asyncio.to_thread(compile_config, config, runs, host)
        if not self._process.alive():
            self._delivery.place_for_start(compiled)
            raise OSError("envoy is not running")
        before = self._process.incarnation
        if self._process.restart_if_changed(bootstrap(config.sidecar)):
            self._gone(before)
        await self._delivery.require_up(self._process.epoch, self._process.incarnation)
        async with closing(self._closing_addresses()):
            await self._delivery.deliver(compiled)

    async def stop(self, grace: float) -> None:
        """Drain for at most `grace` seconds, then end the process."""
        await drain(self._admin, self._directory, self._addresses.values(), grace)
        await self._process.stop(STOP_GRACE)

    def _live_addresses(self) -> dict[str, HostPort]:
        """Return the addresses in Envoy's present configuration, by listener."""
        found: dict[str, HostPort] = {}
        for listener in (self._directory.read_live(LISTENERS_FILE) or {}).get("resources", ()):
            address = listener["address"]["socket_address"]
            found[listener["name"]] = (address["address"], address["port_value"])
        return found

    def _closing_addresses(self) -> set[HostPort]:
        """Return the addresses on which Envoy listens and shall not listen any more."""
        return {*self._live_addresses().values()} - {*self._addresses.values()}
