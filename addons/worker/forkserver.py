"""Forks workers that need not wait for mitmproxy's import, which takes seconds.

`python -O -m counterfault.addons.worker.forkserver --control FD` forks one for each message. It
ends with the supervisor; its workers do not.
"""

import argparse
import gc
import os
import signal
import socket
import sys

from counterfault.addons.mitm import fast_paths
from counterfault.addons.worker import main as process
from counterfault.proxy.engines.channel import receive_blocking, send_blocking


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--control", type=int, required=True)
    control = socket.socket(fileno=parser.parse_args().control)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The kernel reaps them; the supervisor sees a worker's end on its control socket.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    fast_paths.install()
    # What is frozen is not touched by the children's collections, and so stays shared.
    gc.collect()
    gc.freeze()
    while (received := receive_blocking(control)) is not None:
        message, (theirs, budget) = received
        pid = os.fork()
        if pid == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _live(socket.socket(fileno=theirs), budget, message["index"])
        os.close(theirs)
        os.close(budget)
        send_blocking(control, {"type": "spawned", "ticket": message["ticket"], "pid": pid})


def _live(control: socket.socket, budget: int, index: int) -> None:
    """Be a worker, and never return into the fork server's loop."""
    code = 1
    try:
        process.run(control, budget, index)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
