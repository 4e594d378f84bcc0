"""A real sidecar does what its OpenAPI document says, and nothing else, whatever it is asked."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import MakeNginx, MakeSidecar, Sidecar

TOKEN = "sixteen-bytes-or-more"
EXAMPLES = 15


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("guarded", [False, True], ids=["open", "token"])
def test_schemathesis_finds_nothing(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, tmp_path: Path, guarded: bool
) -> None:
    sidecar = make_sidecar(make_nginx("location / { return 200; }").url)
    if guarded:
        (sidecar.directory / "token").write_text(TOKEN)
        sidecar.settings["admin"]["token_file"] = "token"
        sidecar.write_settings()
    sidecar.start()
    sidecar.running("x", faults=[{"at": "inbound", "error": 503, "dose": "1%"}])
    told = schemathesis(
        sidecar, tmp_path, ["-H", f"Authorization: Bearer {TOKEN}"] if guarded else []
    )
    assert told.returncode == 0, told.stdout + told.stderr
    operations = re.search(r"Operations: +(\d+) selected", told.stdout)
    assert operations
    assert f"Tested: {operations[1]}\n" in told.stdout
    assert sidecar.metric("counterfault_internal_errors_total", where="admin") == 0


def schemathesis(
    sidecar: Sidecar, directory: Path, more: list[str]
) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
    # The stream of events has no end.
    what = [f"{sidecar.admin}/openapi.json", "--exclude-path", "/api/events"]
    how = ["--max-examples", str(EXAMPLES), "--seed", "1", "--no-color", "--continue-on-failure"]
    return subprocess.run(
        [*command, *what, *how, *more],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
