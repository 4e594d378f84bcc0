"""The history of a supervisor that dies while it writes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_history_survives_kill_9_in_the_midst_of_a_commit(tmp_path):
    """A supervisor that commits all the time, killed 15 times."""
    module = "tests.support.killed_supervisor"
    command = [sys.executable, "-m", module, str(tmp_path), "15", "20261124"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10
