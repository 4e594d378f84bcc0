"""A fork server: it has imported mitmproxy, which takes seconds, and forks workers in milliseconds.

`python -O -m counterfault.addons.worker.forkserver --control FD` forks a worker for each message
on the socket FD. It ends with the supervisor; its workers do not.
"""

import argparse
import gc
import os
import signal
import socket
import sys

from counterfault.addons.mitm import fast_paths
from counterfault.addons.worker import main as worker_main
from counterfault.proxy.engines.channel import receive_blocking, send_blocking


def main() -> None:
    """Fork workers until the supervisor closes the control socket."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--control", type=int, required=True)
    control = socket.socket(fileno=parser.parse_args().control)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The kernel reaps the workers; the supervisor sees the end of one on its control socket.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    fast_paths.install()
    # The workers' garbage collections leave frozen objects alone, so their pages stay shared.
    gc.collect()
    gc.freeze()
    while (received := receive_blocking(control)) is not None:
        message, (workers_control, budget) = received
        pid = os.fork()
        if pid == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _run_worker(socket.socket(fileno=workers_control), budget, message["index"])
        os.close(workers_control)
        os.close(budget)
        send_blocking(control, {"type": "spawned", "ticket": message["ticket"], "pid": pid})


def _run_worker(control: socket.socket, budget: int, index: int) -> None:
    """Run a worker and exit; this never returns into the fork server's loop."""
    code = 1
    try:
        worker_main.run(control, budget, index)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
