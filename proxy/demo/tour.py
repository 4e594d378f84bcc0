"""The guided tour: a shop, its users, a sidecar between them, and two experiments."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from counterfault.proxy.demo.console import TourConsole, make_console
from counterfault.proxy.demo.outcome import Outcome
from counterfault.proxy.demo.processes import (
    HOST,
    DemoError,
    Processes,
    ended_by_signals,
    free_ports,
    get,
)
from counterfault.proxy.demo.scenarios import SCENARIOS, Scenario, paused, sidecar
from counterfault.proxy.demo.services import BACKENDS, STOREFRONT
from counterfault.proxy.models.overview import ExperimentSummary, Overview

# Requests a second; two cores bear this with ease, so that nothing but the faults is slow.
RATE = 80
WARM_UP = 3.0
AS_FORETOLD, OTHERWISE = 0, 1
WELCOME = (
    "What would users notice if a part of this shop went wrong? To find out without harming all"
    " of them, a fault is put in the way of some users (the experiment), and others (the control)"
    " are left alone. Starting four services, a sidecar that their traffic passes, and the users."
)
_LOOK = 0.5
PORTS = (
    *("admin", "inbound", STOREFRONT),
    *BACKENDS,
    *(f"to_{name}" for name in BACKENDS),
)


class Tour:
    """The running shop and sidecar in a directory of their own."""

    def __init__(self, directory: Path, processes: Processes, screen: TourConsole) -> None:
        self._config = directory / "config"
        self._experiments = self._config / "experiments"
        self._state = directory / "state"
        self._processes, self._screen = processes, screen
        self._ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))

    def open(self) -> None:
        """Start everything and wait until the users have pages to look at."""
        ports = self._ports
        self._experiments.mkdir(parents=True)
        (self._config / "sidecar.yaml").write_text(sidecar(ports, str(self._state)))
        for name in BACKENDS:
            self._processes.start(
                name, "counterfault.proxy.demo.shop", name, "--port", str(ports[name])
            )
        urls = [x for name in BACKENDS for x in (f"--{name}", _url(ports[f"to_{name}"]))]
        port = ("--port", str(ports[STOREFRONT]))
        self._processes.start(STOREFRONT, "counterfault.proxy.demo.shop", STOREFRONT, *port, *urls)
        self._processes.start("sidecar", "counterfault", "run", str(self._config))
        for name in (*BACKENDS, STOREFRONT):
            self._processes.answers(f"starting {name}", ports[name], "/healthz")
        self._processes.answers("starting the sidecar", ports["admin"], "/readyz")
        self._processes.answers("the way through the sidecar", ports["inbound"], "/")
        self._processes.start(
            "users",
            "counterfault.proxy.demo.traffic",
            "--target",
            _url(ports["inbound"]),
            "--rate",
            str(RATE),
        )
        self._pause(WARM_UP)

    def play(self, act: Scenario) -> Outcome:
        """Start an experiment as a user would, by a file, and watch it to its end."""
        self._screen.announce(act)
        self._drop(act.name, act.file)
        self._processes.wait(f"starting {act.name}", lambda: self._find(act.name) is not None, 10)
        with self._screen.following() as follow:
            while (seen := self._look(act.name)).state not in ("done", "stopped"):
                follow(seen)
                self._pause(_LOOK)
            follow(seen)
        outcome = Outcome(act, self._look(act.name))
        self._drop(act.name, paused(act.file))
        return outcome

    def point_out(self) -> None:
        """Print the addresses that the user can open."""
        admin, shop = _url(self._ports["admin"]), _url(self._ports["inbound"])
        self._screen.say(f"Page     {admin}/\nMetrics  {admin}/metrics\nShop     {shop}/")

    def stay(self) -> None:
        """Wait until ^C, or until a process ends."""
        self._screen.say("\nAll goes on until ^C. Put experiments of your own into:")
        self._screen.say(f"{self._experiments}")
        self.point_out()
        with suppress(KeyboardInterrupt):
            while True:
                self._pause(1.0)

    def _drop(self, name: str, text: str) -> None:
        """Write a file, or replace it, in one step."""
        beside = self._config / f"{name}.new"
        beside.write_text(text)
        beside.rename(self._experiments / f"{name}.yaml")

    def _find(self, name: str) -> ExperimentSummary | None:
        """Return an experiment's summary, once the sidecar has loaded it."""
        seen = Overview.from_data(get(self._ports["admin"], "/api/experiments"))
        if seen.reload_error:
            raise DemoError("the sidecar refuses the file:\n" + "\n".join(seen.reload_error))
        return next((e for e in seen.experiments if e.name == name), None)

    def _look(self, name: str) -> ExperimentSummary:
        found = self._find(name)
        if found is None:
            raise DemoError(f"{name} is gone from the sidecar's configuration")
        return found

    def _pause(self, seconds: float) -> None:
        self._processes.check()
        time.sleep(seconds)


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"


@contextmanager
def opened(screen: TourConsole) -> Iterator[Tour]:
    """Yield a tour; its processes and files are gone afterwards, however it ends."""
    with (
        TemporaryDirectory(prefix="counterfault-demo-") as place,
        Processes(Path(place)) as processes,
    ):
        tour = Tour(Path(place), processes, screen)
        tour.open()
        yield tour


def main(keep: bool) -> int:
    """Give the tour; with `keep`, leave everything running until ^C. Returns the exit code."""
    screen = TourConsole(make_console())
    try:
        with ended_by_signals():
            return _give(screen, keep)
    except (DemoError, OSError) as e:
        screen.say(f"The demo cannot go on: {e}")
    except KeyboardInterrupt:
        screen.say("Interrupted; everything is stopped.")
    return OTHERWISE


def _give(screen: TourConsole, keep: bool) -> int:
    screen.say(WELCOME)
    with opened(screen) as tour:
        tour.point_out()
        outcomes = tuple(tour.play(act) for act in SCENARIOS)
        screen.conclude(outcomes)
        if keep:
            tour.stay()
    return AS_FORETOLD if all(outcome.as_foretold for outcome in outcomes) else OTHERWISE
