"""The Prometheus files: valid, tested, and about metrics that there are."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from counterfault.proxy.admin.metrics import WHERE
from deploy.prometheus import build
from tests.support.programs import program
from tests.support.prometheus_server import DEPLOY
from tests.support.watched_run import Watched

PROMETHEUS = DEPLOY / "prometheus"
RUNBOOK = DEPLOY.parent / "docs" / "runbook.md"
GROUPS = [
    group
    for file in sorted((PROMETHEUS / "rules").glob("*.yml"))
    for group in yaml.safe_load(file.read_text())["groups"]
]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDS = [rule["record"] for rule in RULES if "record" in rule]


pytestmark = pytest.mark.timeout(300)  # the first test waits for a whole run


def promtool(*args: str | Path, stdin: str = "") -> None:
    """Run promtool in the folder of its files; it must find nothing."""
    told = subprocess.run(
        [program("promtool"), *args],
        cwd=PROMETHEUS,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("file", sorted(p.name for p in (PROMETHEUS / "tests").iterdir()))
def test_the_rules_do_what_their_tests_say(file: str) -> None:
    promtool("test", "rules", f"tests/{file}")


def test_the_scrape_example_is_valid() -> None:
    promtool("check", "config", "prometheus.yml")


def test_the_scrape_example_for_kubernetes_is_valid(tmp_path: Path) -> None:
    """Debian's promtool is built without Kubernetes, so a file takes the place of discovery."""
    config = yaml.safe_load((PROMETHEUS / "kubernetes.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    job["file_sd_configs"] = [{"files": ["pods.json"]}]
    config["rule_files"] = [str(PROMETHEUS / files) for files in config["rule_files"]]
    file = tmp_path / "kubernetes.yml"
    file.write_text(yaml.safe_dump(config))
    promtool("check", "config", file)


def test_promtool_has_nothing_to_say_against_the_metrics(watched: Watched) -> None:
    promtool("check", "metrics", stdin=watched.page)


@pytest.mark.parametrize("record", RECORDS)
def test_every_recording_rule_records_something(watched: Watched, record: str) -> None:
    assert watched.prometheus.over_time(record)


def test_every_rule_is_about_metrics_that_are_exported_or_recorded(watched: Watched) -> None:
    families = text_string_to_metric_families(watched.page)
    exported = {sample.name for family in families for sample in family.samples}
    for rule in RULES:
        named = set(re.findall(r"[\w:]*counterfault_\w+[\w:]*", rule["expr"]))
        assert named or rule["alert"] == "CounterfaultDown"
        assert named <= exported | set(RECORDS)


def test_every_rule_is_evaluated_without_an_error(watched: Watched) -> None:
    groups = watched.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(RULES)
    assert {rule["health"] for rule in rules} == {"ok"}


def test_the_operator_gets_the_same_rules() -> None:
    assert build.TARGET.read_text() == build.written(), "run `make generate`"
    assert yaml.safe_load(build.TARGET.read_text())["spec"]["groups"] == GROUPS


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_to_do(alert: str) -> None:
    page, _, anchor = ALERTS[alert]["annotations"]["runbook"].partition("#")
    assert page == "docs/runbook.md"
    assert anchor == alert.lower()
    assert f"### {alert}\n" in RUNBOOK.read_text()


def test_the_runbook_knows_wherever_an_internal_error_comes_from() -> None:
    table = RUNBOOK.read_text().partition("### CounterfaultInternalErrors")[2]
    assert set(re.findall(r"`(\w+)`(?=[^|\n]*\| )", table)) == set(WHERE)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_test_in_which_it_fires(alert: str) -> None:
    content = yaml.safe_load((PROMETHEUS / "tests" / "alerts.yml").read_text())
    cases = [case for test in content["tests"] for case in test.get("alert_rule_test", ())]
    assert any(case["alertname"] == alert and case["exp_alerts"] for case in cases)
