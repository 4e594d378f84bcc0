"""The interface of a system that holds metrics: one module for each system implements it."""

from collections.abc import Mapping
from typing import Protocol

from counterfault.proxy.analysis.external.prometheus_response import Answer
from counterfault.proxy.experiments.cohorts import Cohort


class NoAnswer(Exception):
    """The source has no usable answer; the message is one line, without secrets."""


class MetricSource(Protocol):
    """A system that is asked for a metric's value in each cohort."""

    async def query(self, queries: Mapping[Cohort, str], at: float) -> Mapping[Cohort, Answer]:
        """Return what the source says of each cohort, all at the same moment.

        Args:
            queries: By cohort, the query in the source's language.
            at: The moment that is asked about, in Unix seconds.

        Raises:
            NoAnswer: One of the queries had no usable answer within the source's timeout.
        """
        ...
