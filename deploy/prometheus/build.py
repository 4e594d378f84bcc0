"""Writes the rules for the Prometheus operator: `make generate`."""

from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
TARGET = HERE.parent / "kubernetes" / "monitoring" / "prometheusrule.yaml"
_HEAD = """\
# Written by `make generate` from deploy/prometheus/rules. Apply it once for the cluster, not in
# each namespace:
# kubectl apply --namespace monitoring -f deploy/kubernetes/monitoring/prometheusrule.yaml
"""


class _Dumper(yaml.SafeDumper):
    """Expressions of several lines stay so."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def written() -> str:
    """The PrometheusRule with the groups of all rule files."""
    files = sorted((HERE / "rules").glob("*.yml"))
    groups = [g for file in files for g in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    rule: dict[str, Any] = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "counterfault", "labels": {"app.kubernetes.io/name": "counterfault"}},
        "spec": {"groups": groups},
    }
    return _HEAD + yaml.dump(rule, Dumper=_Dumper, sort_keys=False, width=100)


def main() -> None:
    TARGET.write_text(written(), encoding="utf-8")


if __name__ == "__main__":
    main()
