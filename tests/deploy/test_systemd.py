"""The unit: known to systemd, and its commands do what systemd expects of them."""

import configparser
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from counterfault.proxy.config.sidecar import Limits
from tests.support.programs import MakeNginx, MakeSidecar, Sidecar, alive, until
from tests.support.prometheus_server import DEPLOY

UNIT = DEPLOY / "systemd" / "counterfault.service"
INSTALLED = "/opt/counterfault/bin/"


def service() -> configparser.SectionProxy:
    said = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",))
    said.optionxform = str  # type: ignore[assignment, method-assign]
    said.read_string(UNIT.read_text())
    return said["Service"]


def systemd_analyze(*args: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(
        ["systemd-analyze", *args], capture_output=True, text=True, check=False, timeout=60
    )


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace(INSTALLED, f"{Path(sys.executable).parent}/"))
    told = systemd_analyze("verify", "--man=no", here)
    assert told.returncode == 0, told.stderr
    assert UNIT.name not in told.stderr


def test_the_service_is_well_shut_in() -> None:
    """systemd's own score, in tenths; 96 is a service with all rights."""
    told = systemd_analyze("security", "--offline=true", "--threshold=20", UNIT)
    assert told.returncode == 0, told.stdout


def test_a_stop_leaves_time_for_the_drain() -> None:
    assert int(service()["TimeoutStopSec"]) > Limits().drain


def test_what_is_compiled_once_is_kept() -> None:
    kept = f"PYTHONPYCACHEPREFIX=/var/cache/{service()['CacheDirectory']}"
    assert service()["Environment"] == kept
    look = "import sys; print(sys.pycache_prefix)"
    told = subprocess.run(
        [sys.executable, "-O", "-c", look],
        env=dict([kept.split("=", 1)]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == f"/var/cache/{service()['CacheDirectory']}"


def test_its_commands_start_reload_and_adopt(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx
) -> None:
    """As systemd would: state in $STATE_DIRECTORY, signals to the main process alone."""
    assert service()["KillMode"] == "process"
    sidecar = make_sidecar(make_nginx("location / { return 200; }").url)
    del sidecar.settings["state_dir"]
    sidecar.write_settings()
    first = _started(sidecar)
    workers = sidecar.workers()

    reload = shlex.split(service()["ExecReload"].replace("$MAINPID", str(first.pid)))
    before = sidecar.metric("counterfault_config_last_reload_timestamp_seconds")
    subprocess.run(reload, check=True)
    until(lambda: sidecar.metric("counterfault_config_last_reload_timestamp_seconds") > before)

    first.send_signal(signal.SIGKILL)
    first.wait(10)
    _started(sidecar)
    assert sidecar.workers() == workers
    assert sidecar.stop() == 0
    until(lambda: not any(alive(pid) for pid in workers))
    assert list((sidecar.directory / "var").iterdir())


def _started(sidecar: Sidecar) -> subprocess.Popen[bytes]:
    command = shlex.split(
        service()["ExecStart"].replace("/etc/counterfault", str(sidecar.directory))
    )
    command[0] = command[0].replace(INSTALLED, f"{Path(sys.executable).parent}/")
    state = sidecar.directory / "var"
    state.mkdir(exist_ok=True)
    with sidecar.log.open("ab") as log:
        sidecar.process = subprocess.Popen(
            command, env={**os.environ, "STATE_DIRECTORY": str(state)}, stdout=log, stderr=log
        )
    until(sidecar.ready)
    return sidecar.process
