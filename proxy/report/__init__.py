"""Reports on one run in four formats: text, JSON, JUnit XML and HTML. This room reads nothing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import tzinfo

from counterfault.proxy.analysis.result import Result
from counterfault.proxy.models.run_record import RunRecord
from counterfault.proxy.models.run_summary import VerdictSummary
from counterfault.proxy.report import html, junit, text

# Exit codes of `counterfault report` and of `counterfault run --until-done`.
HELD, REFUTED, UNDECIDED = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Format:
    """A format of reports.

    Attributes:
        content_type: The media type of the report.
        suffix: The suffix of a file with the report, without a dot.
        render: Returns the report on a run. The zone is shown beside UTC; None is that of this
            machine.
    """

    content_type: str
    suffix: str
    render: Callable[[RunRecord, tzinfo | None], str]


def _json(record: RunRecord, _: tzinfo | None) -> str:
    return f"{record.as_json(indent=2)}\n"


FORMATS = {
    "text": Format("text/plain; charset=utf-8", "txt", text.render),
    "json": Format("application/json", "json", _json),
    "junit": Format("application/xml", "xml", junit.render),
    "html": Format("text/html; charset=utf-8", "html", html.render),
}


def exit_code(verdict: VerdictSummary) -> int:
    """Return the exit code for a verdict: 0 held, 1 refuted, 3 anything else.

    While the run goes on its verdict is not final, and the code is 3.
    """
    if verdict.provisional:
        return UNDECIDED
    return {Result.HELD: HELD, Result.REFUTED: REFUTED}.get(verdict.result, UNDECIDED)


def worst(codes: Iterable[int]) -> int:
    """Return the exit code for several runs: 1 if any is 1, else the highest; 3 without a run."""
    found = set(codes)
    return REFUTED if REFUTED in found else max(found, default=UNDECIDED)
