"""How the parts of a worker are put together."""

from functools import partial
from pathlib import Path
from typing import Any

from counterfault.addons.faults.pacing import WaitHook, handle_wait
from counterfault.addons.mitm.hook_dispatch import Table
from counterfault.addons.mitm.options import options
from counterfault.addons.pipeline.assign import Assign
from counterfault.addons.pipeline.inject import Inject
from counterfault.addons.pipeline.observe import Observe
from counterfault.addons.pipeline.upstreams import Upstreams
from counterfault.addons.state import WorkerState
from counterfault.addons.tcp.enrolment import TcpContext
from counterfault.addons.transport import tls
from counterfault.addons.worker.listener import AcceptedClient, Shared
from counterfault.proxy.config.model import Config


def tls_of(config: Config, name: str) -> tuple[Any, Path | None]:
    listener = config.sidecar.listeners[name]
    context = None
    if listener.tls is not None:
        cert, key = config.directory / listener.tls.cert, config.directory / listener.tls.key
        context = tls.listener_context(cert, key)
    return context, (config.directory / listener.ca if listener.ca else None)


def share(live: WorkerState) -> Shared:
    assign, inject = Assign(live), Inject(live)
    observe = Observe(live, inject.ended)
    upstreams = Upstreams(live.clock)

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

    tcp = TcpContext(live, inject, observe.ended, upstreams)
    return Shared(live, options(), hooks, inject, tcp, observe.ended, upstreams)
