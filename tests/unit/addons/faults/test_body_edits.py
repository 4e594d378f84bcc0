"""Damaged bytes, cuts and changed JSON."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.addons.faults.body_edits import Cut, Flips, patched
from counterfault.proxy.faults.actions import Flip, JsonValue, Patch

PARTS = st.lists(st.binary(max_size=200), max_size=20)


@given(PARTS, st.floats(0.001, 1), st.floats(0, 1, exclude_max=True))
def test_flips_keep_the_length_and_do_not_depend_on_the_parts(
    parts: Sequence[bytes], share: float, seed: float
) -> None:
    whole, piecewise = (Flips(Flip(share, seed), lambda: None) for _ in range(2))
    body = b"".join(parts)
    assert b"".join(piecewise.feed(part) for part in parts) == whole.feed(body)
    assert len(Flips(Flip(share, seed), lambda: None).feed(body)) == len(body)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 1.0])
def test_so_many_bytes_are_others(share: float) -> None:
    began: list[int] = []
    flips = Flips(Flip(share, 0.5), lambda: began.append(1))
    changed = flips.feed(bytes(400_000))
    assert sum(map(bool, changed)) / len(changed) == pytest.approx(share, rel=0.15)
    assert len(began) == sum(map(bool, changed))


@given(PARTS, st.integers(0, 1000))
def test_a_cut_lets_so_many_bytes_through(parts: Sequence[bytes], after: int) -> None:
    cut, got = Cut(after, 0.0, 0), b""
    for part in parts:
        got += cut.feed(part)
        if cut.done:
            break
    body = b"".join(parts)
    assert got == body[:after]
    assert cut.done == (len(body) > after)


@given(PARTS, st.floats(0, 1, exclude_max=True))
def test_a_share_of_what_nobody_knows_the_length_of(parts: Sequence[bytes], share: float) -> None:
    cut = Cut(None, share, 1 << 20)
    got = b"".join(cut.feed(part) for part in parts)
    body = b"".join(parts)
    assert got == body[: int(len(body) * share)]
    cut.end()
    assert cut.done == (len(got) < len(body))
    assert got + cut.flush() == body


def test_a_share_is_cut_where_too_much_would_have_to_be_kept() -> None:
    cut = Cut(None, 0.5, 1000)
    assert len(cut.feed(bytes(1000))) == 500
    assert not cut.done
    cut.feed(bytes(2000))
    assert cut.done


DOCUMENT = b'{"a": {"b": [1, {"c": "x"}]}, "d~/": 1.5, "n": null}'


@pytest.mark.parametrize(
    ("pointer", "value", "at"),
    [
        (("a", "b", "0"), 7, lambda d: d["a"]["b"][0]),
        (("a", "b", "1", "c"), {"y": [None]}, lambda d: d["a"]["b"][1]["c"]),
        (("d~/",), "z", lambda d: d["d~/"]),
        (("new",), True, lambda d: d["new"]),
        ((), [1], lambda d: d),
    ],
)
def test_a_pointer_says_where(pointer: tuple[str, ...], value: JsonValue, at) -> None:
    changed = patched(DOCUMENT, Patch(pointer, value))
    assert changed is not None
    assert at(json.loads(changed)) == value


def test_a_member_or_an_item_may_be_removed() -> None:
    changed = patched(DOCUMENT, Patch(("a", "b", "0"), None, remove=True))
    assert changed is not None
    assert json.loads(changed)["a"]["b"] == [{"c": "x"}]
    changed = patched(DOCUMENT, Patch(("n",), None, remove=True))
    assert changed is not None
    assert "n" not in json.loads(changed)


@pytest.mark.parametrize(
    ("body", "pointer", "remove"),
    [
        (b"", ("a",), False),
        (b"not json", (), False),
        (b"\xff", (), False),
        (DOCUMENT, ("x", "y"), False),
        (DOCUMENT, ("x",), True),
        (DOCUMENT, ("n", "y"), False),
        (DOCUMENT, ("a", "b", "2"), False),
        (DOCUMENT, ("a", "b", "-"), False),
        (DOCUMENT, ("a", "b", "01"), False),
        (DOCUMENT, ("a", "b", "²"), False),
        (b"[" * 100_000, ("0",), False),
    ],
)
def test_what_has_no_such_place_is_left_alone(
    body: bytes, pointer: tuple[str, ...], remove: bool
) -> None:
    assert patched(body, Patch(pointer, None, remove)) is None
