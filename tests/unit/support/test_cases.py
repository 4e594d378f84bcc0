"""Cases that are folded into one test are all run, and each failure is reported by its name."""

import pytest

from tests.support.cases import each

pytest_plugins = ["pytester"]

ONE = """
import pytest
from tests.support.cases import each

@each("sign", [1, -1], ids=["plus", "minus"])
@each(("number", "square"), [(1, 1), (2, 4), (3, 8)])
def test_squares(sign, number, square, made):
    assert (sign * number) ** 2 == square

@pytest.fixture
def made(made_so_far=[]):
    made_so_far.append(1)
    assert len(made_so_far) == 1
"""


def test_every_case_is_run_and_the_failed_are_named(pytester):
    pytester.makepyfile(ONE)
    result = pytester.runpytest("-p", "no:cacheprovider")
    result.assert_outcomes(failed=3)  # two cases, and the test that holds them
    told = result.stdout.str()
    assert "(sign='plus', number, square='(3, 8)')" in told
    assert "(sign='minus', number, square='(3, 8)')" in told
    assert "(sign='plus', number, square='(2, 4)')" not in told


@each("first", "ab")
@each("second", "xy")
async def _all(seen, first, second):
    seen.append(first + second)


def test_cases_are_multiplied_in_order_and_may_be_coroutines(subtests):
    seen: list[str] = []
    coroutine = _all(seen=seen, subtests=subtests)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert seen == ["ax", "ay", "bx", "by"]
