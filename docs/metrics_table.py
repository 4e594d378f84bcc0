"""Writes the table of metrics into docs/metrics.md and README.md: `make generate`."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import Metric

from counterfault.proxy.admin.metrics import MetricsCollector
from counterfault.proxy.config.loader import load
from counterfault.proxy.engines.fault_budget import Budget, create
from counterfault.proxy.engines.mitmproxy.pool import WorkerPool
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.supervisor.supervisor import Supervisor
from docs.marked import replace

TREE = Path(__file__).parents[1]
PAGES = (TREE / "docs" / "metrics.md", TREE / "README.md")
EXAMPLE = TREE / "config"
# Labels that only some samples of a family have.
_OF_SAMPLES = {"le"}


def families() -> Iterator[Metric]:
    """Yield what a sidecar with the example configuration exports; no worker is started."""
    totals = Totals()
    workers = WorkerPool(1, Budget(create()), totals.update, totals.retire)
    with TemporaryDirectory() as state:
        yield from MetricsCollector(
            Supervisor(load(EXAMPLE), Path(state), workers, totals)
        ).collect()


def table() -> str:
    """Return lines of Markdown, a row for each metric: its name, type, labels and meaning."""
    rows = ["| name | type | labels | |", "|---|---|---|---|"]
    for family in sorted(families(), key=lambda family: family.name):
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = "gauge" if family.type == "info" else family.type
        names = dict.fromkeys(name for sample in family.samples for name in sample.labels)
        labels = ", ".join(name for name in names if name not in _OF_SAMPLES)
        rows.append(f"| `{family.name}{suffix}` | {kind} | {labels} | {family.documentation} |")
    return "\n".join(rows) + "\n"


def written(page: str) -> str:
    """Return the page with the table as it is today."""
    return replace(page, "metrics", table())


def main() -> None:
    """Write every page anew."""
    for page in PAGES:
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
