"""Messages are found whatever the pieces in which they come, and no byte is changed."""

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.addons.websocket.frames import FrameParser, Segment


def frame(payload: bytes, opcode: int = 1, fin: bool = True, masked: bool = False) -> bytes:
    size, mask = len(payload), 0x80 if masked else 0
    first = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        head = first + bytes([mask | size])
    elif size < 1 << 16:
        head = first + bytes([mask | 126]) + struct.pack("!H", size)
    else:
        head = first + bytes([mask | 127]) + struct.pack("!Q", size)
    return head + (b"mask" if masked else b"") + payload


SIZES = st.sampled_from([0, 1, 125, 126, 300, 65535, 65536])
FRAMES = st.lists(st.tuples(SIZES, st.booleans()), min_size=1, max_size=4)


@given(FRAMES, st.lists(st.integers(1, 70_000), max_size=6))
def test_each_message_begins_and_ends_once(
    sizes: Sequence[tuple[int, bool]], cuts: Sequence[int]
) -> None:
    data = b"".join(frame(b"x" * size, 2, True, masked) for size, masked in sizes)
    frames, found, start = FrameParser(), list[Segment](), 0
    for cut in [*cuts, len(data)]:
        found += frames.feed(data[start : start + cut])
        start += cut
    assert b"".join(segment.data for segment in found) == data
    assert sum(segment.begins for segment in found) == len(sizes)
    assert sum(segment.ends for segment in found) == len(sizes)
    assert frames.take_rest() == b""


def test_fragments_are_one_message_and_pings_in_between_are_none() -> None:
    parts = [frame(b"one", 1, False), frame(b"?", 9), frame(b"two", 0, False), frame(b"three", 0)]
    found = list(FrameParser().feed(b"".join(parts)))
    assert [segment.control for segment in found] == [False] * 2 + [True] * 2 + [False] * 4
    assert [i for i, segment in enumerate(found) if segment.begins] == [0]
    assert [i for i, segment in enumerate(found) if segment.ends] == [7]


@given(FRAMES, st.integers(0, 200_000))
def test_what_was_only_watched_is_not_sent_again(
    sizes: Sequence[tuple[int, bool]], cut: int
) -> None:
    data = b"".join(frame(b"x" * size, 2, True, masked) for size, masked in sizes)
    whole, late = list(FrameParser().feed(data)), FrameParser()
    late.skip(data[:cut])
    found = list(late.feed(data[cut:]))
    assert b"".join(segment.data for segment in found) == data[cut:]
    starts = [i for i, segment in enumerate(whole) if segment.begins]
    places = [sum(len(segment.data) for segment in whole[:i]) for i in starts]
    assert sum(segment.begins for segment in found) == sum(place >= cut for place in places)


@pytest.mark.parametrize("size", range(1, 4))
def test_a_head_that_never_became_whole_is_what_is_left(size: int) -> None:
    frames = FrameParser()
    head = frame(b"x" * 300, 1)[:size]
    assert list(frames.feed(head)) == []
    assert frames.take_rest() == head
