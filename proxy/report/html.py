"""Renders a report as one HTML file without scripts; it needs no network and can be printed."""

from base64 import b64encode
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from hashlib import sha256
from importlib.resources import files

import yaml
from tornado.template import Template

from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.models.json_model import of_cohort
from counterfault.proxy.models.run_record import RunRecord
from counterfault.proxy.models.run_summary import MetricSummary
from counterfault.proxy.report import distribution, timeseries, wording


def _file(name: str) -> str:
    return files(__name__.rpartition(".")[0]).joinpath(name).read_text(encoding="utf-8")


_CSS = _file("page.css")
_TEMPLATE = Template(_file("page.html"), "page.html", whitespace="all")

# A file opened from disk has no headers, so the template puts the policy into a meta element.
POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{b64encode(sha256(_CSS.encode()).digest()).decode()}'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)


@dataclass(frozen=True, slots=True)
class MetricSection:
    """What the page shows of a metric: its summary, its charts as SVG, and its table.

    A chart is None where there is nothing to draw.
    """

    summary: MetricSummary
    levels: str | None
    estimates: str | None
    latencies: str | None
    columns: tuple[str, ...]
    rows: tuple[distribution.Row, ...]


def render(record: RunRecord, zone: tzinfo | None) -> str:
    """Return the page. The template escapes all text of users.

    Args:
        record: The run.
        zone: The zone to show beside UTC; None is that of this machine.
    """
    run = timeseries.TimeSeries.of(record)
    sections = [
        MetricSection(
            metric,
            timeseries.levels(run, metric),
            timeseries.estimates(run, metric),
            distribution.latency_histogram(record, metric),
            distribution.columns(metric),
            tuple(distribution.rows(record, metric)),
        )
        for metric in record.metrics
    ]
    return _TEMPLATE.generate(
        record=record,
        sections=sections,
        wording=wording,
        cohorts=ENROLLED,
        of_cohort=of_cohort,
        moment=partial(wording.moment, zone=zone),
        span=wording.span(record),
        configuration=_as_yaml(record.configuration),
        css=_CSS,
        policy=POLICY,
    ).decode()


def _as_yaml(configuration: dict[str, object]) -> str:
    return yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True, width=88)
