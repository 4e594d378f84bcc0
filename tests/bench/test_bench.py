"""The benchmark says what it lacks, and its table comes from a recorded result; no load here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import machine
from tests.bench.setups import of_checkout
from tests.bench.table import render, summary

_ROOT = Path(__file__).parent.parent.parent


def _row(number, load, setup, **seen):
    return {"round": number, "load": load, "setup": setup, **seen}


def _rounds(stock, one, added=1.0):
    """Rounds in which stock and the sidecar had these requests per CPU-second."""
    rows = []
    for number, (theirs, ours) in enumerate(zip(stock, one, strict=True)):
        rows += [
            _row(number, "keep-alive", "stock", per_cpu_second=theirs, p50_ms=30.0, p99_ms=90.0),
            _row(number, "keep-alive", "one", per_cpu_second=ours, p50_ms=8.0, p99_ms=20.0),
            _row(number, "slow", "one", p50_ms=1.3, p99_ms=5.0, added_p50_ms=added),
        ]
    return rows


def _result(rows):
    return {
        "machine": {"cpu": "Abacus", "cores": 2},
        "versions": {"python": "3.13.0"},
        "rounds": rows,
        "summary": summary(rows),
    }


def test_without_wrk_it_says_which_package_has_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.run", "--rounds", "1", "--no-result"],
        cwd=_ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "wrk" in done.stderr
    assert "apt-get install wrk" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_name_is_an_error_that_lists_the_known(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.run", "--only", "stok"],
        cwd=_ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "unknown: stok; known: stock, bare" in done.stderr


def test_ratios_are_of_the_same_round():
    (ratio, added) = summary(_rounds(stock=[1000, 500, 100], one=[4000, 2000, 400]))
    assert (ratio["median"], ratio["min"], ratio["max"]) == (4.0, 4.0, 4.0)
    assert (ratio["target"], ratio["reached"]) == (">= 3.5", True)
    assert (added["target"], added["reached"]) == ("<= 1.2", True)


def test_the_table_shows_figures_spread_and_what_was_missed():
    text = render(_result(_rounds(stock=[1000, 1000], one=[3000, 3200], added=1.5)))
    assert "cpu Abacus, cores 2, python 3.13.0" in text
    assert "HTTP/1: requests per CPU-second" in text
    assert "3100 (3000 to 3200), p50 8.0 (8.0 to 8.0)" in text
    assert "3.10 (3.00 to 3.20)" in text
    assert text.count("MISSED") == 2


@pytest.mark.parametrize(("index", "core"), [(0, 1), (1, 2), (2, 0), (3, 1)])
def test_workers_share_the_core_of_the_load_last(index, core):
    assert machine.Cores(load=0, workers=(1, 2)).of_worker(index) == core


def test_the_cpu_time_of_a_process_grows():
    before = machine.cpu_seconds(os.getpid())
    while machine.cpu_seconds(os.getpid()) == before:
        sum(range(10_000))


def test_another_checkout_without_an_environment_is_an_error(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.run", "--against", str(tmp_path)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "make install" in done.stderr


def test_a_sidecar_is_compared_with_the_same_one_in_another_checkout():
    rows = []
    for number, (theirs, ours) in enumerate([(4000, 4000), (3000, 2400), (2000, 2000)]):
        rows += [
            _row(number, "keep-alive", "one-before", per_cpu_second=theirs),
            _row(number, "keep-alive", "one", per_cpu_second=ours),
            _row(number, "brisk", "envoy-before", p50_ms=2.0, p99_ms=3.0, added_p50_ms=1.0),
            _row(number, "brisk", "envoy", p50_ms=3.0, p99_ms=4.0, added_p50_ms=2.0),
        ]
    found = {each["text"]: each for each in summary(rows)}
    typical = found["one, keep-alive, now : before"]
    assert (typical["median"], typical["min"], typical["max"]) == (1.0, 1.0, 1.25)
    assert (typical["target"], typical["reached"]) == ("<= 1.03", True)
    assert found["one, keep-alive, now : before, the least"]["median"] == 1.0
    assert found["envoy, brisk, now : before"]["median"] == 1.5
    assert "before: sidecar, 1 experiment" in render(_result(rows))


def test_what_is_no_sidecar_has_no_twin_in_another_checkout(tmp_path):
    assert of_checkout("stock", tmp_path) is None
    assert of_checkout("envoy", tmp_path) is not None
