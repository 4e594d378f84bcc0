"""Ours goes in place of mitmproxy's function only where the source is the one it was made for."""

import inspect
import logging
from typing import Any

import pytest
from mitmproxy.version import VERSION

from counterfault.addons.mitm import fast_paths
from counterfault.addons.mitm.replacement import Replacement, install, source_hash

HOW = """
{name} of mitmproxy {version} is not what ours was written against (now: {now}).
Read what has changed in its sources, change ours to match, run its twin test in this folder,
and then write the new hash into its `written_against`:
    python -m counterfault.addons.mitm.fast_paths
"""


@pytest.mark.parametrize("each", fast_paths.ALL, ids=lambda each: each.name)
def test_each_fits_the_installed_mitmproxy(each: Replacement) -> None:
    now = source_hash(each)
    assert each.fits(), HOW.format(name=each.name, version=VERSION, now=now)


def theirs(number: int) -> int:
    return number + 1


def ours(number: int) -> int:
    return 1 + number


theirs.__module__ = "mitmproxy.example"


def replacement(against: str = "") -> tuple[Any, Replacement]:
    """Of a function that stands in a class of its own, so that each test has a new one."""
    owner = type("Owner", (), {"theirs": staticmethod(theirs)})
    made = Replacement("Owner.theirs", owner, "theirs", ours, (theirs,), against)
    return owner, made


def test_ours_replaces_the_function_it_was_written_against() -> None:
    _, first = replacement()
    owner, fitting = replacement(source_hash(first))
    assert install([fitting]) == ()
    assert vars(owner)["theirs"] is ours
    assert install([fitting]) == ()  # nor is it compared with itself


def test_another_source_keeps_mitmproxys_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    owner, changed = replacement("0123456789abcdef")
    with caplog.at_level(logging.WARNING):
        assert install([changed]) == ("Owner.theirs",)
    assert owner.theirs is theirs
    (line,) = caplog.messages
    assert line.startswith(f"mitmproxy {VERSION}: Owner.theirs: the source is not the one")


@pytest.mark.parametrize("error", [OSError, TypeError])
def test_a_source_that_cannot_be_read_keeps_mitmproxys(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    _, first = replacement()
    owner, unread = replacement(source_hash(first))

    def refuse(_: object) -> str:
        raise error("source code not available")

    monkeypatch.setattr(inspect, "getsource", refuse)
    assert install([unread]) == ("Owner.theirs",)
    assert owner.theirs is theirs


def test_a_change_anywhere_keeps_all_of_mitmproxys(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [vars(each.owner).get(each.attribute) for each in fast_paths.ALL]
    read = inspect.getsource
    monkeypatch.setattr(
        inspect, "getsource", lambda thing: read(thing) + "\n# uuid __init__ changed\n"
    )
    assert install(fast_paths.ALL) == tuple(each.name for each in fast_paths.ALL)
    assert before == [vars(each.owner).get(each.attribute) for each in fast_paths.ALL]


def test_indentation_and_blank_lines_are_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    _, plain = replacement()
    want = source_hash(plain)
    read = inspect.getsource
    monkeypatch.setattr(
        inspect, "getsource", lambda thing: "    " + read(thing).replace("\n", "  \n\n    ")
    )
    assert source_hash(plain) == want
