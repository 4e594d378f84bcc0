"""The report as one HTML file: no script, nothing to fetch, readable offline and on paper."""

from base64 import b64encode
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from hashlib import sha256
from importlib.resources import files

import yaml
from tornado.template import Template

from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.report import distribution, timeseries, wording
from counterfault.proxy.report.wording import Data


def _file(name: str) -> str:
    return files(__name__.rpartition(".")[0]).joinpath(name).read_text(encoding="utf-8")


_CSS = _file("page.css")
_TEMPLATE = Template(_file("page.html"), "page.html", whitespace="all")

# A file from a disk has no headers; these directives work in a meta element as well.
POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{b64encode(sha256(_CSS.encode()).digest()).decode()}'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A metric with its charts; None where there is nothing to draw."""

    told: Data
    levels: str | None
    estimates: str | None
    latencies: str | None
    columns: tuple[str, ...]
    rows: tuple[distribution.Row, ...]


def render(record: Data, zone: tzinfo | None) -> str:
    """The page; the template escapes all text."""
    over_time = timeseries.TimeSeries.of(record)
    metrics = [
        Shown(
            metric,
            timeseries.levels(over_time, metric),
            timeseries.estimates(over_time, metric),
            distribution.latencies(record, metric),
            distribution.columns(metric),
            tuple(distribution.rows(record, metric)),
        )
        for metric in record["metrics"]
    ]
    return _TEMPLATE.generate(
        r=record,
        metrics=metrics,
        words=wording,
        ENROLLED=ENROLLED,
        moment=partial(wording.moment, zone=zone),
        span=wording.span(record),
        configuration=_as_yaml(record["configuration"]),
        css=_CSS,
        policy=POLICY,
    ).decode()


def _as_yaml(configuration: Data) -> str:
    return yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True, width=88)
