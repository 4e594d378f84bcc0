"""The commands that talk to a running sidecar, before a real one."""

from pathlib import Path
from typing import Any

import pytest

from counterfault.proxy.cli.main import main
from tests.support import http_clients
from tests.support.programs import MakeNginx, MakeSidecar, until


def test_a_running_sidecar_does_as_it_is_told(
    make_sidecar: MakeSidecar,
    make_nginx: MakeNginx,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sidecar = make_sidecar(make_nginx("location / { return 200; }").url).start()
    sidecar.running(faults=[{"at": "inbound", "error": 503}])

    def run(*arguments: str) -> tuple[int, Any]:
        code = main([*arguments, "--admin", sidecar.admin])
        return code, capsys.readouterr()

    until(lambda: sidecar.get("/api/experiments")["workers"]["ready"] == 1)
    code, said = run("status")
    assert code == 0
    assert "shop: 1/1 workers, 0 faults active" in said.out
    assert "x #1  running" in said.out

    assert run("stop", "x")[1].out == "x is stopped\n"
    assert sidecar.state() == "stopped"
    code, said = run("stop", "y")
    assert code == 2
    assert "x" in said.err
    assert run("stop")[0] == 0
    assert "the kill switch is on" in run("status")[1].out
    assert run("resume")[0] == 0
    assert "kill switch" not in run("status")[1].out

    assert run("reload") == (0, ("reloaded\n", ""))
    (sidecar.directory / "experiments" / "y.yaml").write_text("experiment: y\n")
    code, said = run("reload")
    assert code == 2
    assert "experiments/y.yaml:1:1: missing key 'duration'" in said.err


def test_the_token_comes_from_a_file_that_an_option_or_the_environment_names(
    make_sidecar: MakeSidecar,
    make_nginx: MakeNginx,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sidecar = make_sidecar(make_nginx("location / { return 200; }").url)
    (sidecar.directory / "token").write_text("sixteen-bytes-and-more\n")
    sidecar.settings["admin"]["token_file"] = "token"
    sidecar.write_settings()
    sidecar.start()
    status = ["status", "--admin", sidecar.admin]

    assert main(status) == 2
    assert "a token is needed" in capsys.readouterr().err
    assert main([*status, "--token-file", str(sidecar.directory / "token")]) == 0
    monkeypatch.setenv("COUNTERFAULT_TOKEN_FILE", str(sidecar.directory / "token"))
    assert main(status) == 0
    assert main([*status, "--token-file", str(tmp_path / "none")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_check_tells_how_long_it_takes_where_a_sidecar_runs(
    make_sidecar: MakeSidecar,
    make_nginx: MakeNginx,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sidecar = make_sidecar(make_nginx("location / { return 200; }").url)
    metric = {"name": "success", "at": "inbound", "success_rate": {"drop": "1pp"}}
    faults = [{"at": "inbound", "error": 503}]
    sidecar.experiment(state="paused", faults=faults, steady_state=[metric])

    def checked() -> str:
        assert main(["check", str(sidecar.directory)]) == 0
        return capsys.readouterr().out

    assert "requests in each cohort (if 1% fail in both)\n" in checked()
    sidecar.start()
    assert "; never, as nothing comes to inbound now\n" in checked()
    for _ in range(20):
        http_clients.get(sidecar.url)
    until(lambda: sidecar.metric("counterfault_requests_total") == 20)
    assert " at inbound's present " in checked()
