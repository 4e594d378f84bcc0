"""The demo's shop and its users around a real sidecar: load as people make it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from counterfault.proxy.demo.processes import HOST, Processes
from counterfault.proxy.demo.services import BACKENDS, STOREFRONT
from tests.support.programs import Sidecar, free_port


class Shop:
    """A sidecar between users, a storefront and what it depends on."""

    def __init__(self, directory: Path, processes: Processes, **settings: Any) -> None:
        names = (STOREFRONT, *BACKENDS, *(f"to_{name}" for name in BACKENDS))
        self._ports = {name: free_port() for name in names}
        self._processes = processes
        listeners = {
            name: {"listen": f"{HOST}:{self._ports[f'to_{name}']}", "upstream": self._url(name)}
            for name in BACKENDS
        }
        settings = {"service": "storefront", "listeners": listeners, **settings}
        self.sidecar = Sidecar(directory / "config", self._url(STOREFRONT), settings)

    def open(self, rate: float) -> None:
        """Start everything; so many requests a second come in."""
        for name in BACKENDS:
            self._serve(name)
        to = [x for name in BACKENDS for x in (f"--{name}", self._url(f"to_{name}"))]
        self._serve(STOREFRONT, *to)
        for name in (*BACKENDS, STOREFRONT):
            self._processes.answers(name, self._ports[name], "/healthz")
        self.sidecar.start()
        self._processes.answers("the way through", self.sidecar.port, "/")
        target = ("--target", self.sidecar.url, "--rate", str(rate))
        self._processes.start("users", "counterfault.proxy.demo.traffic", *target)

    def _serve(self, name: str, *more: str) -> None:
        port = ("--port", str(self._ports[name]))
        self._processes.start(name, "counterfault.proxy.demo.shop", name, *port, *more)

    def _url(self, name: str) -> str:
        return f"http://{HOST}:{self._ports[name]}"


@contextmanager
def open_demo_shop(directory: Path, rate: float, **settings: Any) -> Iterator[Shop]:
    """A shop whose processes are gone afterwards, however it ends."""
    with Processes(directory) as processes:
        shop = Shop(directory, processes, **settings)
        try:
            shop.open(rate)
            yield shop
        finally:
            if shop.sidecar.process is not None:
                shop.sidecar.stop()
