"""Many cases in one test: all are run, and each that fails is reported by its own name."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from itertools import product
from typing import Any

import pytest

type Test = Callable[..., Any]
# Names and values of one case, for the report and for the test.
type _Case = tuple[dict[str, str], dict[str, Any]]


def each(names: str | tuple[str, ...], values: Iterable[Any]) -> Callable[[Test], Test]:
    """Run a test once for each of the values, as a subtest, in the order given.

    Like `pytest.mark.parametrize`, but its fixtures are made once for all of them: for cases that
    differ by a header or a byte and leave nothing behind. Several of it are multiplied. Of a
    mapping the test gets the values, and the report the keys.
    """
    names = (names,) if isinstance(names, str) else names
    cases = list(_cases(names, values))

    def fold(test: Test) -> Test:
        inner: Test = getattr(test, "one_case", test)
        axes: list[list[_Case]] = [cases, *getattr(test, "axes", [])]
        given = {name for axis in axes for name in axis[0][1]}
        wanted = inspect.signature(inner)
        fixtures = [p for name, p in wanted.parameters.items() if name not in given]
        subtests = inspect.Parameter("subtests", inspect.Parameter.KEYWORD_ONLY)

        if inspect.iscoroutinefunction(inner):

            @wraps(inner)
            async def folded(*, subtests: pytest.Subtests, **made: Any) -> None:
                for said, case in _product(axes):
                    with subtests.test(**said):
                        await inner(**made, **case)
        else:

            @wraps(inner)
            def folded(*, subtests: pytest.Subtests, **made: Any) -> None:
                for said, case in _product(axes):
                    with subtests.test(**said):
                        inner(**made, **case)

        vars(folded).update(
            __signature__=wanted.replace(parameters=[*fixtures, subtests]),
            one_case=inner,
            axes=axes,
        )
        return folded

    return fold


def _cases(names: tuple[str, ...], values: Iterable[Any]) -> Iterator[_Case]:
    for key in values:
        value = values[key] if isinstance(values, Mapping) else key
        several = value if len(names) > 1 else (value,)
        yield {", ".join(names): _shown(key)}, dict(zip(names, several, strict=True))


def _product(axes: list[list[_Case]]) -> Iterator[_Case]:
    for combination in product(*axes):
        said: dict[str, str] = {}
        case: dict[str, Any] = {}
        for names, values in combination:
            said |= names
            case |= values
        yield said, case


def _shown(value: object) -> str:
    """Enough of a value to find its case again."""
    return str(value)[:80]
