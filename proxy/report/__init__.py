"""Reports on one run (`runs.record`), in four formats; nothing is read here."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import tzinfo

from counterfault.proxy.analysis.verdict import Result
from counterfault.proxy.report import html, junit, text
from counterfault.proxy.report.wording import Data

HELD, REFUTED, UNDECIDED = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Format:
    """How a report is written; `zone` is shown beside UTC; None is that of this machine."""

    content_type: str
    suffix: str
    render: Callable[[Data, tzinfo | None], str]


def _json(record: Data, _: tzinfo | None) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


FORMATS = {
    "text": Format("text/plain; charset=utf-8", "txt", text.render),
    "json": Format("application/json", "json", _json),
    "junit": Format("application/xml", "xml", junit.render),
    "html": Format("text/html; charset=utf-8", "html", html.render),
}


def exit_code(verdict: Data) -> int:
    """0 held, 1 refuted, 3 inconclusive or invalid; while a run goes on it is not known: 3."""
    if verdict["provisional"]:
        return UNDECIDED
    return {Result.HELD: HELD, Result.REFUTED: REFUTED}.get(verdict["result"], UNDECIDED)


def worst(codes: Iterable[int]) -> int:
    """Of several runs: refuted, else inconclusive or invalid, else held; of none, not known."""
    found = set(codes)
    return REFUTED if REFUTED in found else max(found, default=UNDECIDED)
