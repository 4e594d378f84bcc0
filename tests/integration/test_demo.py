"""The whole demo, as a new user runs it."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_experiment_ends_as_the_tour_foretells() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "counterfault", "demo"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "held, as foretold" in told.stdout
    assert "refuted, as foretold" in told.stdout
