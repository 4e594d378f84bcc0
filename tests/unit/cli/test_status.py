"""The text of `counterfault status`."""

import itertools

import pytest

from counterfault.proxy.admin.views import overview
from counterfault.proxy.cli import status
from tests.support.example_runs import example_world


def said(tmp_path, seconds, **how):
    with example_world(tmp_path, seconds, **how) as world:
        return "\n".join(status.lines(overview(world.supervisor)))


def test_a_run_under_way_tells_its_verdict_dose_and_how_long_each_metric_takes(tmp_path):
    found = said(tmp_path, 45, rate=10)
    assert "slow #1  running, 165s left\n  inconclusive so far: " in found
    assert "\n  dose: 300 of 300 faults due performed (100%)\n" in found
    (line,) = (text for text in found.splitlines() if text.startswith("  success: "))
    assert line.endswith(" more at the present rate")
    assert "2 pp allowed); about " in line


def test_what_is_decided_waits_for_nothing(tmp_path):
    found = said(tmp_path, 260)
    assert "slow #1  done\n  held: all within tolerance; " in found
    assert found.count("; within tolerance\n") == 3
    assert "present rate" not in found


def test_harm_is_told_at_the_metric(tmp_path):
    found = said(tmp_path, 260, harm=0.2)
    assert "\n  refuted: success: " in found
    assert found.count("; worse than allowed\n") == 1


def test_before_the_faults_there_is_no_dose(tmp_path):
    found = said(tmp_path, 0)
    assert "slow #1  baseline, 30s left\n  no verdict yet: no fault has been injected" in found
    assert "dose:" not in found


def test_watching_looks_again_until_it_cannot(monkeypatch, capsys):
    monkeypatch.setattr("time.sleep", lambda _: None)
    looks = itertools.count()

    def look():
        if (number := next(looks)) == 3:
            raise KeyboardInterrupt
        return f"look {number}"

    with pytest.raises(KeyboardInterrupt):
        status.watch(look)
    assert "look 2" in capsys.readouterr().out
