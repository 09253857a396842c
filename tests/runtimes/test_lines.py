from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from hew_loop.runtimes.lines import LineSplitter, Tail


@settings(deadline=None)
@given(st.binary(max_size=60).map(lambda data: data.replace(b"\x00", b"\n")), st.lists(st.integers(0, 60)))
def test_lines_are_the_same_wherever_the_stream_is_cut(data: bytes, cuts: list[int]) -> None:
    splitter = LineSplitter()
    edges = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})

    lines = [line for start, end in pairwise(edges) for line in splitter.feed(data[start:end])]

    assert [*lines, splitter.flush() or b""] == data.split(b"\n")


@settings(deadline=None)
@given(st.lists(st.integers(0, 12)), st.integers(1, 30))
def test_only_lines_above_the_limit_are_dropped_and_counted(sizes: list[int], piece: int) -> None:
    splitter = LineSplitter(max_line_bytes=6)
    data = b"".join(b"x" * size + b"\n" for size in sizes)

    lines = [line for start in range(0, len(data), piece) for line in splitter.feed(data[start : start + piece])]

    assert (lines, splitter.dropped) == ([b"x" * n for n in sizes if n <= 6], sum(n > 6 for n in sizes))


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20)))
def test_a_tail_is_the_end_of_everything(pieces: list[bytes]) -> None:
    tail = Tail(max_bytes=7)
    for piece in pieces:
        tail.feed(piece)

    assert tail.text == b"".join(pieces)[-7:].decode("utf-8", "replace")
