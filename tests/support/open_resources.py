"""What a sidecar has open, counted: after its clients have left it is no more than before them.

What comes and goes by itself, such as the supervisor's questions to Envoy, only adds: a number is
the least that is seen for a while.
"""

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from counterfault.proxy.engines.envoy.config.names import ADMIN_SOCKET
from counterfault.proxy.engines.envoy.runtime.run_directory import PID
from tests.support import http_clients
from tests.support.programs import Sidecar, program, until

type Open = Counter[str]
"""Numbers by what they are of."""

# Workers tell ten times a second how many tasks they have: what is known of before is forgotten.
SETTLES = 0.4
EVERY = 0.1
# Workers keep nothing open; Envoy keeps idle connections, to upstreams and workers, four seconds.
PATIENCE = {"mitmproxy": 15.0, "envoy": 15.0}
_GAUGES = "(downstream|upstream)_(cx|rq)_active$"
_POOLED = ".upstream_cx_active"


def descriptors(pid: int) -> Open:
    """The open descriptors of a process, by kind."""
    found: Open = Counter()
    folder = Path(f"/proc/{pid}/fd")
    for name in os.listdir(folder):
        with suppress(OSError):  # closed since
            found[f"{pid} {os.readlink(folder / name).partition(':')[0]}"] += 1
    return found


def open_now(sidecar: Sidecar) -> Open:
    """All of it: the supervisor, whatever it has started, and the data plane."""
    time.sleep(EVERY)  # what we have asked is closed at the other end too
    assert sidecar.process is not None
    pid, found = _envoy_pid(sidecar), Counter[str]()
    for each in (*_family(sidecar.process.pid), *([pid] if pid else ())):
        found += descriptors(each)
    wanted = ("counterfault_faults_active", "counterfault_tasks")
    for line in sidecar.metrics().splitlines():
        if line.startswith(wanted):
            name, _, value = line.rpartition(" ")
            found[name] += int(float(value))
    return found + _envoy_gauges(sidecar) if pid else found


def open_when_idle(sidecar: Sidecar) -> Open:
    """What is open while nobody is there; without connections that Envoy keeps for a while."""
    until(lambda: _all_tell(sidecar))
    end, least = time.monotonic() + SETTLES, open_now(sidecar)
    while time.monotonic() < end:
        least &= open_now(sidecar)
    return _without_pool(sidecar, least)


def assert_nothing_left(
    sidecar: Sidecar,
    before: Open,
    patience: float | None = None,
    *,
    kept: bool = False,
) -> None:
    """Wait until there is no more than before; fails with what there is.

    `kept`: not to wait for what Envoy keeps open for a while.
    """
    time.sleep(SETTLES)
    engine = sidecar.settings.get("engine", "mitmproxy")
    end, more = time.monotonic() + (PATIENCE[engine] if patience is None else patience), None
    while more is None or more:
        found = open_now(sidecar)
        if kept and engine == "envoy":
            found = _but_kept(found)
        left = found - before
        more = left if more is None else more & left
        if more and time.monotonic() > end:
            told = f"left behind: {dict(more)} beside {dict(before)}; open are"
            raise AssertionError("\n".join((told, *_connections(more))))
        if more:
            time.sleep(2 * EVERY)


@contextmanager
def leaves_nothing(sidecar: Sidecar) -> Iterator[None]:
    """Whatever is done in here, nothing of it is left afterwards, and nothing has gone wrong."""
    before = open_when_idle(sidecar)
    yield
    assert_nothing_left(sidecar, before)
    assert sidecar.metric("counterfault_internal_errors_total") == 0


def _all_tell(sidecar: Sidecar) -> bool:
    """Whether every worker has said how many tasks it has: at rest its own two."""
    workers = len(sidecar.workers()) - bool(_envoy_pid(sidecar))
    return sidecar.metric("counterfault_tasks", process="workers") >= 2 * workers


def _family(pid: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield pid
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _family(int(child))


def _connections(more: Open) -> Iterator[str]:
    """The TCP connections of the processes of which there is more than before."""
    pids = {name.split()[0] for name in more if name[0].isdigit()}
    shown = subprocess.run([program("ss"), "-tanpH"], capture_output=True, text=True, check=False)
    for line in shown.stdout.splitlines():
        if any(f"pid={pid}," in line for pid in pids):
            yield line


def _envoy_pid(sidecar: Sidecar) -> int:
    """Nobody's child; 0 where there is none."""
    if sidecar.settings.get("engine") != "envoy":
        return 0
    found: int = json.loads((_folder(sidecar) / PID).read_text())["pid"]
    return found


def _envoy_gauges(sidecar: Sidecar) -> Open:
    """What Envoy itself counts: connections and requests on both sides."""
    folder = os.open(_folder(sidecar), os.O_PATH)
    try:
        # By way of the descriptor: a socket's address must be short.
        transport = httpx.HTTPTransport(
            uds=f"/proc/self/fd/{folder}/{ADMIN_SOCKET}", verify=http_clients.NOBODY
        )
        with httpx.Client(transport=transport) as client:
            answer = client.get("http://envoy/stats", params={"filter": _GAUGES})
    finally:
        os.close(folder)
    rows = (line.rpartition(": ") for line in answer.raise_for_status().text.splitlines())
    return Counter({name: int(value) for name, _, value in rows if "admin" not in name})


def _folder(sidecar: Sidecar) -> Path:
    return Path(sidecar.settings["state_dir"]) / "envoy"


def _without_pool(sidecar: Sidecar, found: Open) -> Open:
    pooled = {name: count for name, count in found.items() if name.endswith(_POOLED)}
    return found - Counter({**pooled, f"{_envoy_pid(sidecar)} socket": sum(pooled.values())})


def _but_kept(found: Open) -> Open:
    """Without connections to upstreams, and descriptors, of which each connection has one."""
    return Counter({n: c for n, c in found.items() if _POOLED not in n and not n[0].isdigit()})
