"""A supervisor for tests: real registry and totals, a data plane that does nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from counterfault.proxy.config.loader import load
from counterfault.proxy.config.model import Config
from counterfault.proxy.engines import fault_budget
from counterfault.proxy.engines.fault_budget import Budget
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.measurement.keys import Key
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.supervisor.supervisor import Supervisor

START = 1_000_000.0

SIDECAR: dict[str, Any] = {
    "service": "shop",
    "workers": 2,
    "admin": {"listen": "127.0.0.1:0"},
    "listeners": {
        "inbound": {"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:3000"},
        "payments": {"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:3001"},
    },
}
SLOW: dict[str, Any] = {
    "experiment": "slow",
    "hypothesis": "Checkout keeps working",
    "state": "running",
    "duration": "10m",
    "baseline": "1m",
    "recovery": "30s",
    "cohorts": {"experiment": "1%", "control": "2%"},
    "faults": [
        {"at": "payments", "latency": "400ms"},
        {"at": "payments", "error": 503, "dose": "50%", "match": {"path": "/charge"}},
    ],
    "steady_state": [
        {"name": "success", "at": "inbound", "success_rate": {"drop": "0.5pp"}},
        {"name": "p99", "at": "inbound", "latency": {"quantile": 0.99, "rise": "20%"}},
        {"name": "slow", "at": "inbound", "slow": {"over": "300ms", "rise": "1pp"}},
        {"name": "orders", "at": "inbound", "rate": {"drop": "5%"}},
    ],
}


@dataclass
class IdleEngine:
    """An Engine without workers; `confirm` is awaited before a plan counts as applied."""

    budget: Budget = field(default_factory=lambda: Budget(fault_budget.create()))
    ready: int = 2
    serves: bool = True
    pids: list[int] = field(default_factory=lambda: [1, 2])
    tasks: int = 4
    generation: int = 0
    runs: Mapping[str, RunStatus] = field(default_factory=dict)
    confirm: Callable[[], Any] | None = None

    def bind(self, config: Config) -> None:
        """Nothing to bind."""

    async def prepare(self, config: Config) -> None:
        """Nothing is needed."""

    def push(self, config: Config, runs: Mapping[str, RunStatus], lease_until: float) -> int:
        self.generation += 1
        self.runs = runs
        return self.generation

    def renew(self, lease_until: float) -> None:
        """Nobody holds a lease."""

    async def wait_serving(self) -> None:
        """There is nothing to wait for."""

    async def wait_applied(self, generation: int) -> None:
        if self.confirm is not None:
            await self.confirm()


class World:
    """A supervisor, what it is made of, and a clock that tests move."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = START
        self.engine, self.totals = IdleEngine(), Totals()
        self._counts: dict[Key, float] = {}

    def write(self, *experiments: dict[str, Any], **sidecar: Any) -> None:
        (self.directory / "experiments").mkdir(parents=True, exist_ok=True)
        for old in (self.directory / "experiments").iterdir():
            old.unlink()
        (self.directory / "sidecar.yaml").write_text(yaml.safe_dump(SIDECAR | sidecar))
        for e in experiments:
            path = self.directory / "experiments" / f"{e['experiment']}.yaml"
            path.write_text(yaml.safe_dump(e, sort_keys=False))

    def start(self, state_dir: Path | None = None) -> Supervisor:
        config = load(self.directory)
        where = state_dir or self.directory / "state"
        clock = (lambda: self.now, lambda: self.now)
        self.supervisor = Supervisor(config, where, self.engine, self.totals, *clock)
        self.supervisor.start()
        return self.supervisor

    def pass_time(self, seconds: float) -> None:
        """Tick once a second, as a supervisor does."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + 1, until)
            self.supervisor.tick()

    def count(self, key: Key, amount: float = 1) -> None:
        self._counts[key] = self._counts.get(key, 0) + amount
        self.totals.update("worker", [(key, self._counts[key])])

    def close(self) -> None:
        self.supervisor.registry.store.close()
