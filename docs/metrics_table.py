"""Writes the table of what is exported into docs/metrics.md and README.md: `make docs`."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import Metric

from counterfault.proxy.admin.metrics import MetricsCollector
from counterfault.proxy.config.loader import load
from counterfault.proxy.engines.mitmproxy.pool import WorkerPool
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.supervisor.supervisor import Supervisor

TREE = Path(__file__).parents[1]
PAGES = (TREE / "docs" / "metrics.md", TREE / "README.md")
EXAMPLE = TREE / "config"
BEGIN, END = "<!-- metrics: written by make docs -->\n", "<!-- end of metrics -->\n"
# Names that only some samples of a family have.
_OF_SAMPLES = {"le"}


def families(directory: Path) -> Iterator[Metric]:
    """What a sidecar with the example configuration exports; no worker is started."""
    totals = Totals()
    workers = WorkerPool(1, totals.update, totals.retire)
    yield from MetricsCollector(Supervisor(load(EXAMPLE), directory, workers, totals)).collect()


def table(found: Iterator[Metric]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| name | type | labels | |"
    yield "|---|---|---|---|"
    for family in sorted(found, key=lambda family: family.name):
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = "gauge" if family.type == "info" else family.type
        names = dict.fromkeys(name for sample in family.samples for name in sample.labels)
        labels = ", ".join(name for name in names if name not in _OF_SAMPLES)
        yield f"| `{family.name}{suffix}` | {kind} | {labels} | {family.documentation} |"


def written(page: str) -> str:
    """The page with a table that is current."""
    before, begin, rest = page.partition(BEGIN)
    assert begin, "there is no place for the table"
    with TemporaryDirectory() as directory:
        lines = [*table(families(Path(directory)))]
    return f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")
