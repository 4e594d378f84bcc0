"""Composes a worker of its parts; no other module knows them all."""

import socket
from functools import partial

from counterfault.addons.faults.pacing import WaitHook, handle_wait
from counterfault.addons.mitm.hook_dispatch import Table
from counterfault.addons.mitm.options import options
from counterfault.addons.pipeline.assign import Assign
from counterfault.addons.pipeline.inject import Inject
from counterfault.addons.pipeline.observe import Observe
from counterfault.addons.pipeline.upstreams import Upstreams
from counterfault.addons.state import WorkerState
from counterfault.addons.tcp.enrolment import TcpContext
from counterfault.addons.worker.accepted_client import AcceptedClient
from counterfault.addons.worker.worker import Worker
from counterfault.addons.worker.worker_context import WorkerContext
from counterfault.proxy.engines.fault_budget import Budget


def make_worker(control: socket.socket, budget: int, index: int) -> Worker:
    """Make worker `index`.

    Args:
        control: The socket to the supervisor.
        budget: The descriptor of the shared counters.
        index: The number of the worker, and of its slot in the fault budget.
    """
    return Worker(control, Budget(budget, index), index, make_context)


def make_context(state: WorkerState) -> WorkerContext:
    """Make what all connections of a worker share; says which handlers each hook has."""
    assign, inject = Assign(state), Inject(state)
    observe = Observe(state, inject.exchange_ended)
    upstreams = Upstreams(state.clock)

    def hooks(client: AcceptedClient) -> Table:
        return {
            "next_layer": (("protocol", client.next_layer),),
            "tls_start_client": (("protocol", client.tls_start_client),),
            "tls_start_server": (("protocol", client.tls_start_server),),
            "requestheaders": (
                ("assign", partial(assign.requestheaders, peer=client)),
                ("inject", inject.requestheaders),
            ),
            "responseheaders": (
                ("inject", inject.responseheaders),
                ("protocol", client.responseheaders),
            ),
            "response": (("observe", observe.response),),
            "error": (("observe", observe.error),),
            WaitHook.name: (("inject", handle_wait),),
        }

    tcp = TcpContext(state, inject, observe.exchange_ended, upstreams)
    return WorkerContext(state, options(), hooks, inject, tcp, observe.exchange_ended, upstreams)
