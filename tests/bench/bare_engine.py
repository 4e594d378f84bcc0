"""A worker without assignment, faults and metrics: what these cost is what it does better."""

import argparse
import asyncio
import gc
import socket
from pathlib import Path

import uvloop
from mitmproxy import http

from counterfault.addons.mitm import fast_paths
from counterfault.addons.mitm.hook_dispatch import Table
from counterfault.addons.mitm.options import options
from counterfault.addons.pipeline.inject import Inject
from counterfault.addons.pipeline.upstreams import Upstreams
from counterfault.addons.state import WorkerState
from counterfault.addons.tcp.enrolment import TcpContext
from counterfault.addons.transport import tls
from counterfault.addons.worker.accepted_client import AcceptedClient
from counterfault.addons.worker.listener import Listener, ListenerSettings
from counterfault.addons.worker.main import eager_task
from counterfault.addons.worker.worker_context import WorkerContext
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines import fault_budget
from counterfault.proxy.engines.plan import Plan


def _stream_request(flow: http.HTTPFlow) -> None:
    flow.request.stream = True


def _stream_response(flow: http.HTTPFlow) -> None:
    if flow.response is not None:
        flow.response.stream = True


def _hooks(client: AcceptedClient) -> Table:
    """What the engine itself needs."""
    return {
        "next_layer": (("protocol", client.next_layer),),
        "tls_start_client": (("protocol", client.tls_start_client),),
        "requestheaders": (("stream", _stream_request),),
        "responseheaders": (("stream", _stream_response),),
    }


def _context(upstream: str, port: int) -> WorkerContext:
    inbound = {"listen": f"127.0.0.1:{port}", "upstream": upstream}
    sidecar = Sidecar.model_validate({"service": "bare", "listeners": {"inbound": inbound}})
    live = WorkerState(Plan(sidecar, (), {}), fault_budget.Budget(fault_budget.create()))
    ended, upstreams = (lambda exchange, status: None), Upstreams(live.clock)
    inject = Inject(live)
    tcp = TcpContext(live, inject, ended, upstreams)
    return WorkerContext(live, options(), _hooks, inject, tcp, ended, upstreams)


async def _serve(upstream: str, port: int, secure: int, cert: Path, key: Path) -> None:
    asyncio.get_running_loop().set_task_factory(eager_task)
    gc.set_threshold(2000, 10, 20)  # as a worker does
    context = _context(upstream, port)
    route = context.state.plan.routes["inbound"]
    listeners = []
    for number in (port, secure):
        certificate = tls.listener_context(cert, key) if number == secure else None
        listener = Listener(context, ListenerSettings(route, certificate))
        await listener.start(socket.create_server(("127.0.0.1", number), backlog=4096))
        listeners.append(listener)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("upstream")
    parser.add_argument("port", type=int)
    parser.add_argument("secure", type=int)
    parser.add_argument("cert", type=Path)
    parser.add_argument("key", type=Path)
    fast_paths.install()
    gc.collect()
    gc.freeze()  # as the fork server does
    uvloop.run(_serve(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
