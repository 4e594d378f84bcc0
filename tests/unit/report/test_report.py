"""What all formats share: exit codes, and JSON that is the record itself."""

import json
from datetime import UTC

import pytest

from counterfault.proxy.analysis.result import Result
from counterfault.proxy.models.run_record import RunRecord
from counterfault.proxy.models.run_summary import VerdictSummary
from counterfault.proxy.report import FORMATS, exit_code, worst
from tests.support.example_runs import EXAMPLE_RUNS, held


@pytest.mark.parametrize(
    ("result", "provisional", "code"),
    [
        ("held", False, 0),
        ("refuted", False, 1),
        ("inconclusive", False, 3),
        ("invalid", False, 3),
        ("held", True, 3),
        ("refuted", True, 3),
    ],
)
def test_the_exit_code_is_the_final_verdict(result, provisional, code):
    assert (
        exit_code(VerdictSummary(result=Result(result), reason="", provisional=provisional)) == code
    )


@pytest.mark.parametrize(
    ("codes", "code"), [([0, 0], 0), ([0, 3], 3), ([3, 1, 0], 1), ([1, 3], 1), ([], 3)]
)
def test_of_several_runs_the_worst_counts(codes, code):
    assert worst(codes) == code


def test_json_is_the_record():
    record = held()
    assert json.loads(FORMATS["json"].render(RunRecord.from_data(record), UTC)) == record


@pytest.mark.parametrize("story", EXAMPLE_RUNS)
def test_the_stories_end_as_they_are_called(story):
    record = EXAMPLE_RUNS[story]()
    expected = "inconclusive" if story == "empty" else story
    assert record["verdict"]["result"] == expected
