"""docs/glossary.md: sorted, one meaning per word, and all words that the product shows."""

import re
from pathlib import Path

from counterfault.proxy.analysis.result import Result
from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.experiments.lifecycle import LIVE, State

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "glossary.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE)[1:]
WORDS = [word for word, _ in ROWS]
# What the design, the settings and the page are told in.
SHARED = """
action, active fault, admin port, baggage, baseline, blast radius, bystander, cell, cohort,
cohort tag, control, counters, data plane, detour, dose, drain, e-value, effect, engine, enrolment,
epoch, evidence, exchange, experiment, fault, fault budget, fault rule, fork server,
graceful close, guard, guardrail, handover, history, hypothesis, incarnation, interference,
kill switch, lease, listener, match, monitor, orphan, overflow, performed, plan, position, protect,
recovering, registry, replicate, report, revision, ring, room, run, salt, sample,
sample ratio mismatch, share, sidecar, slot, snapshot, state, state directory, steady state,
summary, supervisor, tick, tolerance, totals, trust, unit, upstream, user, verdict, within, worker
"""


def test_it_has_the_words_that_are_shared():
    shared = re.split(r",\s+", SHARED.strip())
    assert [word for word in shared if word not in WORDS] == []


def test_it_has_the_words_that_a_run_shows():
    verdicts = [str(result) for result in Result]
    assert [word for word in verdicts if word not in WORDS] == []
    states = next(meaning for word, meaning in ROWS if word == "state")
    assert [state for state in State if f"`{state}`" not in states] == []
    live = next(meaning for word, meaning in ROWS if word == "live")
    assert [state for state in LIVE if f"`{state}`" not in live] == []
    assert {Cohort.CONTROL, Cohort.BYSTANDER} <= set(WORDS)


def test_words_are_sorted_and_each_is_there_once():
    assert sorted(set(WORDS), key=str.lower) == WORDS


def test_each_word_has_a_sentence():
    assert [word for word, meaning in ROWS if not meaning.strip().endswith(".")] == []
    assert len(ROWS) == TEXT.count("\n| ") - 1
