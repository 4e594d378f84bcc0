"""The users: wrk and h2load, as many as they can be or so many a second; answers what they saw."""

import json
import re
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from counterfault.proxy.experiments.cohorts import Cohort
from tests.bench.setups import Running

_SCRIPT = Path(__file__).with_name("users.lua")
_WARM_UP = 1
# Requests a second of a load that is paced, and as many directly.
_SLOW, _BRISK = 100, 200
_PERCENT = 100
_OK = 200

type Seen = dict[str, float]
type Traffic = Callable[[Running, int, int], Seen]
"""Loads a proxy for some seconds; the second number is nginx's own port."""


class Failed(Exception):
    """An answer was not 2xx, or there was none."""


def keep_alive(proxy: Running, _: int, seconds: int) -> Seen:
    return _wrk(proxy.port, seconds)


def close(proxy: Running, _: int, seconds: int) -> Seen:
    return _wrk(proxy.port, seconds, "close")


def _wrk(port: int, seconds: int, *args: str) -> Seen:
    said = _run(
        *("wrk", "-t1", "-c32", f"-d{seconds}s", "-s", str(_SCRIPT)),
        *(f"http://127.0.0.1:{port}/orders", "--", *args),
    )
    seen: Seen = json.loads(said.strip().splitlines()[-1])
    errors = seen.pop("errors")
    if errors or not seen["requests"]:
        raise Failed(f"wrk: {errors} of {seen['requests']} requests failed:\n{said}")
    return seen


def http2(proxy: Running, _: int, seconds: int) -> Seen:
    said = _run(
        *("h2load", "-c8", "-m10", "-D", str(seconds)),
        *("-H", "x-user-id: user-7", f"https://127.0.0.1:{proxy.secure}/orders"),
    )
    total = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", said)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said)
    spent = re.search(r"finished in ([\d.]+)(ms|s)", said)
    if total is None or codes is None or spent is None or "protocol: h2" not in said:
        raise Failed(f"h2load says what is not understood:\n{said}")
    if any(int(n) for n in (*total.groups()[1:], *codes.groups()[1:])) or not int(total[1]):
        raise Failed(f"h2load: requests failed:\n{said}")
    took = float(spent[1]) / (1000 if spent[2] == "ms" else 1)
    return {"requests": int(total[1]), "seconds": took}


def slow(proxy: Running, direct: int, seconds: int) -> Seen:
    """So many requests a second through the proxy, and between them as many directly."""
    return _at(_SLOW, proxy, direct, seconds)


def brisk(proxy: Running, direct: int, seconds: int) -> Seen:
    """The same, faster."""
    return _at(_BRISK, proxy, direct, seconds)


def _at(rate: int, proxy: Running, direct: int, seconds: int) -> Seen:
    """What those saw who are in no experiment, while of each cohort one in a hundred asks."""
    few = rate // _PERCENT
    control, experiment = (_user(proxy, each) for each in (Cohort.CONTROL, Cohort.EXPERIMENT))
    bystander = _user(proxy, Cohort.BYSTANDER)
    asked = (
        (proxy.port, bystander, rate - 2 * few),
        (direct, bystander, rate),
        (proxy.port, control, few),
        (proxy.port, experiment, few),
    )
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        askers = [
            stack.enter_context(_Asker(Path(folder) / f"{i}.log", *each, seconds))
            for i, each in enumerate(asked)
        ]
        through, beside, *_ = [asker.times() for asker in askers]
    seen: Seen = {"requests": len(through), "seconds": seconds}
    for name, rank in (("p50_ms", 50), ("p99_ms", 99)):
        ours, theirs = (_percentile(times, rank) / 1000 for times in (through, beside))
        seen |= {name: ours, f"direct_{name}": theirs, f"added_{name}": ours - theirs}
    return seen


def _user(proxy: Running, cohort: Cohort) -> int:
    """The first user in a cohort; where there are no cohorts, the first one."""
    return next(i for i in count() if proxy.cohort(i) in (cohort, None))


class _Asker(subprocess.Popen[str]):
    """A user on one connection that is kept, asking so many times a second."""

    def __init__(self, log: Path, port: int, user: int, rate: int, seconds: int) -> None:
        self._log = log
        command = (
            *("h2load", "--h1", "-c1", "--rps", str(rate), "-D", str(seconds + _WARM_UP)),
            *("--log-file", str(log), "-H", f"x-user-id: user-{user}"),
            f"http://127.0.0.1:{port}/orders",
        )
        super().__init__(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def times(self) -> list[int]:
        """How long each answer took, in microseconds, once all was warm."""
        said, _ = self.communicate()
        rows = [tuple(map(int, line.split("\t"))) for line in self._log.read_text().splitlines()]
        if self.returncode or not rows or any(code != _OK for _, code, _ in rows):
            raise Failed(f"h2load: not all of {len(rows)} requests were answered well:\n{said}")
        begin = rows[0][0] + _WARM_UP * 1_000_000
        return [took for start, _, took in rows if start >= begin]


LOADS: dict[str, tuple[str, Traffic]] = {
    "keep-alive": ("HTTP/1", keep_alive),
    "close": ("HTTP/1 without keep-alive", close),
    "http2": ("HTTP/2", http2),
    "slow": (f"{_SLOW} requests a second", slow),
    "brisk": (f"{_BRISK} requests a second", brisk),
}


PACED = ("slow", "brisk")


def _percentile(times: list[int], rank: int) -> float:
    return statistics.quantiles(times, n=100, method="inclusive")[rank - 1]


def warm_up(load: str, proxy: Running, direct: int) -> None:
    """So that caches are filled and connections' paths are known; who is paced does it himself."""
    if load not in PACED:
        LOADS[load][1](proxy, direct, _WARM_UP)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
