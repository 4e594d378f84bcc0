"""One service of the demo's shop: `python -m counterfault.proxy.demo.shop SERVICE --port N`."""

import argparse
import asyncio
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from tornado.web import Application, RequestHandler

from counterfault.proxy.demo import services, storefront
from counterfault.proxy.demo.http_client import HttpClient
from counterfault.proxy.demo.services import BACKENDS, STOREFRONT


def application(service: str, urls: Mapping[str, str]) -> Application:
    """Return the web application of a service; `urls` has the URL of each storefront backend."""
    routes: list[tuple[Any, ...]] = [(r"/healthz", services.Health)]
    if service == STOREFRONT:
        backends = {"backends": storefront.Backends(urls, HttpClient())}
        routes += [(path, page, backends) for path, page in storefront.ROUTES.items()]
    else:
        routes.append(services.ROUTES[service])
    return Application(routes, log_function=_silent)


def _silent(handler: RequestHandler) -> None:
    """Log no requests: tornado would write a line for each."""


async def serve(service: str, host: str, port: int, urls: Mapping[str, str]) -> None:
    """Serve until the process gets SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = application(service, urls).listen(port, host)
    await stop.wait()
    server.stop()
    await server.close_all_connections()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the service that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m counterfault.proxy.demo.shop")
    parser.add_argument("service", choices=(STOREFRONT, *BACKENDS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="default: the loopback's")
    for name in BACKENDS:
        parser.add_argument(
            f"--{name}", metavar="URL", default="", help=f"where the storefront finds {name}"
        )
    args = parser.parse_args(argv)
    urls = {name: getattr(args, name).rstrip("/") for name in BACKENDS}
    asyncio.run(serve(args.service, args.host, args.port, urls))


if __name__ == "__main__":
    main()
