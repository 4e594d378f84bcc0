"""Many cases in one test: all are run, and each that fails is reported by its own name."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from itertools import product
from typing import Any

import pytest

type Test = Callable[..., Any]
# Names and values of one case, for the report and for the test.
type _Case = tuple[dict[str, str], dict[str, Any]]


def each(
    names: str | tuple[str, ...], values: Iterable[Any], ids: Iterable[str] | None = None
) -> Callable[[Test], Test]:
    """Run a test once for each of the values, as a subtest, in the order given.

    It is used like `pytest.mark.parametrize`, but the test's fixtures are made once for all cases:
    these differ by a header or a byte and leave nothing behind. Several decorators are multiplied.
    """
    names = (names,) if isinstance(names, str) else names
    values = list(values)
    cases = list(_cases(names, values, map(_shown, values) if ids is None else ids))

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


def _cases(names: tuple[str, ...], values: list[Any], ids: Iterable[str]) -> Iterator[_Case]:
    for value, shown in zip(values, ids, strict=True):
        several = value if len(names) > 1 else (value,)
        yield {", ".join(names): shown}, dict(zip(names, several, strict=True))


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
