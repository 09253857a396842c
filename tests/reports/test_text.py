"""What others wrote, made harmless."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.reports import text

ANY = st.text(max_size=60)


@given(ANY)
def test_a_plain_text_is_one_printable_line(value: str) -> None:
    shown = text.plain(value)
    assert shown.isprintable()
    assert len(shown) <= 500


@given(st.text(st.characters(categories=("L", "N", "P", "S")), max_size=60))
def test_a_harmless_text_stays_as_it_is(value: str) -> None:
    assert text.plain(value) == value


@given(ANY)
def test_a_word_of_a_command_line_is_one_word_for_a_shell(value: str) -> None:
    assert shlex.split(text.word(value)) == [text.plain(value)]


@given(ANY, st.integers(4, 40))
def test_a_cut_text_fits(value: str, width: int) -> None:
    shown = text.cut(text.plain(value), width)
    assert text.pad(shown, width) == shown.ljust(len(text.pad(shown, width)))
    assert text.cut(shown, width) == shown


def test_a_long_text_is_cut_with_dots() -> None:
    assert text.plain("a" * 20, max_chars=10) == "aaaaaaa..."
    assert text.cut("日本語の題名", 9) == "日本語..."


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (0.26, "0.3s"), (9.94, "9.9s"), (9.96, "10s"), (59.6, "1m 00s"), (185, "3m 05s"), (7207, "2h 00m 07s")],
)
def test_a_duration_is_short_and_exact_enough(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown
