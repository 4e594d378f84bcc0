"""`make bench`: how fast is it? Compares setups in rounds, prints a table, writes a result.

With `--against DIR`, each sidecar is also run as the checkout in DIR has it, with the environment
in DIR/.venv, in the same sweeps: the table then says what a request costs now : before. Processes
differ by some percent from start to start, so this needs more rounds than sweeps: `make bench
ARGS="--against DIR --only one,all,keep-alive --rounds 8 --sweeps 4 --seconds 1"`.

One core is the proxy's, the other is nginx's, the load's and the supervisor's. With more workers
than such cores, the last one shares the load's. CPU time is that of the workers alone.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.bench import machine
from tests.bench.loads import LOADS, PACED, Failed, warm_up
from tests.bench.setups import SETUPS, Running, before, command_of, here, of_checkout
from tests.bench.table import Rows, render, summary
from tests.support.programs import Nginx

_RESULTS = Path(__file__).with_name("results")
# Which setups each load is for: what tells nothing new is left out.
_PLAN = {
    "keep-alive": tuple(name for name in SETUPS if name not in ("envoy-none", "envoy-detour")),
    "close": ("stock", "bare", "one"),
    "http2": ("stock", "bare", "one"),
    "slow": ("stock", "bare", "one"),
    "brisk": ("bare-envoy", "envoy", "envoy-none", "envoy-detour"),
}
_ORDERS = """access_log off; location / {
    default_type application/json; return 200 '{"orders": [{"id": 1, "state": "paid"}]}'; }"""


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        programs = machine.needed()
        cores = machine.cores()
        os.sched_setaffinity(0, {cores.load})
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
        about = {
            "date": date,
            "machine": {**machine.described(), "cores": 1 + len(cores.workers)},
            "versions": machine.versions(programs) | machine.commit(options.against),
            "settings": {n: getattr(options, n) for n in ("rounds", "sweeps", "seconds")},
        }
        rounds = _measure(options, cores)
    except (machine.Missing, Failed, pytest.fail.Exception) as e:
        sys.exit(f"bench: {e}")
    result = {**about, "summary": summary(rounds), "rounds": rounds}
    print(render(result))
    if not options.no_result:
        _RESULTS.mkdir(exist_ok=True)
        (_RESULTS / f"{date}.json").write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, metavar="N")
    parser.add_argument(
        "--sweeps",
        type=int,
        default=6,
        metavar="N",
        help="through all setups in each round: what is compared is measured close together",
    )
    parser.add_argument("--seconds", type=int, default=2, metavar="N", help="for each figure")
    parser.add_argument("--no-result", action="store_true", help="print the table only")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout")
    known = ", ".join((*SETUPS, *LOADS))
    parser.add_argument("--only", default="", metavar="NAMES", help=f"with commas, of: {known}")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name]
    if unknown := [name for name in names if name not in {*SETUPS, *LOADS}]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {known}")
    against = options.against and options.against.resolve()
    if against and not command_of(against).exists():
        parser.error(f"{command_of(against)} is not there; `make install` puts it there")
    options.setups = {}
    for name in [n for n in SETUPS if n in names] or list(SETUPS):
        options.setups[name] = SETUPS[name][1]
        if against and (twin := of_checkout(name, against)):
            options.setups[before(name)] = twin
    options.loads = [n for n in LOADS if n in names] or list(LOADS)
    return options


def _measure(options: argparse.Namespace, cores: machine.Cores) -> Rows:
    rows: Rows = []
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        nginx = Nginx(Path(directory) / "nginx", _ORDERS)
        stack.callback(nginx.stop)
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds} …", file=sys.stderr)
            rows += _round(options, cores, nginx, Path(directory) / str(number), number)
    return rows


def _round(
    options: argparse.Namespace, cores: machine.Cores, nginx: Nginx, directory: Path, number: int
) -> Rows:
    """Every load on every setup, in sweeps; a round has its own processes."""
    rows: Rows = []
    with ExitStack() as stack:
        running: dict[str, Running] = {}
        for name, setup in options.setups.items():
            running[name] = stack.enter_context(setup(directory / name, nginx.url))
            for i, pid in enumerate(running[name].pids):
                machine.pin(pid, cores.of_worker(i))
        for load in options.loads:
            names = [name for name in options.setups if here(name) in _PLAN[load]]
            for name in names:
                warm_up(load, running[name], nginx.port)
            with machine.awake(cores) if load in PACED else nullcontext():
                for sweep in range(options.sweeps):
                    # There and back, so that no setup always comes after the same other one.
                    for name in names if sweep % 2 == 0 else reversed(names):
                        seen = _one(load, running[name], nginx.port, options.seconds)
                        sweeps = number * options.sweeps + sweep
                        rows.append({"round": sweeps, "load": load, "setup": name, **seen})
        _check_enrolment(running)
    return rows


def _one(load: str, proxy: Running, direct: int, seconds: int) -> dict[str, Any]:
    before = sum(map(machine.cpu_seconds, proxy.pids))
    seen = LOADS[load][1](proxy, direct, seconds)
    used = sum(map(machine.cpu_seconds, proxy.pids)) - before
    return {
        **seen,
        "cpu_seconds": round(used, 2),
        "per_cpu_second": seen["requests"] / used,
        "per_second": seen["requests"] / seen["seconds"],
    }


def _check_enrolment(running: dict[str, Running]) -> None:
    """Figures of a sidecar that enrols nobody would be worth nothing."""
    for name, proxy in running.items():
        enrols = here(name) in ("one", "hundred", "all", "two", "envoy", "envoy-detour")
        if enrols and proxy.enrolled() == 0:
            raise Failed(f"{name}: nobody was enrolled")


if __name__ == "__main__":
    main()
