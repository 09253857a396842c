"""Ids: beads' grammar, its length for a number of issues, and prefixes read back from ids."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.core.ids import Seed, child_id, clean_prefix, hash_length, new_id, prefix_of

SEED = Seed("Title", "Text", "ann", datetime(2026, 1, 1, tzinfo=UTC))
# beads.md §3.2: what every tool accepts.
GRAMMAR = re.compile(r"[a-z][a-z0-9-]*-(?:[a-z0-9]{3}|(?=[a-z]*[0-9])[a-z0-9]{4,8})(?:\.[1-9][0-9]*){0,3}")


@pytest.mark.parametrize(
    ("count", "length"), [(0, 3), (160, 3), (170, 4), (980, 4), (990, 5), (5_800, 5), (6_000, 6), (10**9, 8)]
)
def test_the_hash_grows_with_the_number_of_issues(count: int, length: int) -> None:
    assert hash_length(count) == length


def test_an_id_is_the_same_for_the_same_seed_and_steps_aside_for_a_taken_one() -> None:
    first = new_id("tt", SEED, taken=(), count=0)
    second = new_id("tt", SEED, taken={first}, count=0)
    assert first == new_id("tt", SEED, taken=(), count=0)
    assert first != second
    assert prefix_of(first) == prefix_of(second) == "tt"


@given(st.text(), st.text(), st.integers(0, 200_000), st.sampled_from(["tt", "my-app", "a1"]))
def test_every_id_fits_the_grammar_and_gives_its_prefix_back(title: str, text: str, count: int, prefix: str) -> None:
    made = new_id(prefix, Seed(title, text, "ann", SEED.created_at), taken=(), count=count)
    assert GRAMMAR.fullmatch(made)
    assert prefix_of(made) == prefix


def test_when_all_short_hashes_are_taken_a_longer_one_is_made() -> None:
    class AllOfThree:
        def __contains__(self, name: object) -> bool:
            return len(str(name)) == len("tt-abc")

    assert re.fullmatch(r"tt-[a-z0-9]{4}", new_id("tt", SEED, taken=AllOfThree(), count=0))


@pytest.mark.parametrize(
    ("known", "child"),
    [
        ([], "tt-e.1"),
        (["tt-e", "tt-e.1", "tt-e.3"], "tt-e.4"),
        (["tt-e.2.7", "tt-ee.9", "tt-e.x"], "tt-e.3"),
        (["tt-e.10", "tt-e.9"], "tt-e.11"),
    ],
)
def test_a_child_is_numbered_above_every_known_one(known: list[str], child: str) -> None:
    assert child_id("tt-e", known) == child


@pytest.mark.parametrize(
    ("task_id", "prefix"),
    [
        ("bd-44d0", "bd"),
        ("my-app-hey", "my-app"),
        ("my-app-a3f2.1", "my-app"),
        ("my-app-hello", "my"),
        ("gh-12345678901", "gh"),
        ("tt-long-name", "tt"),
        ("plain", ""),
    ],
)
def test_a_prefix_is_read_from_an_id_as_beads_reads_it(task_id: str, prefix: str) -> None:
    assert prefix_of(task_id) == prefix


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("shop", "shop"), ("My App_2", "my-app-2"), ("2048-game", "game"), ("--x--", "x"), ("日本", "task"), ("", "task")],
)
def test_a_directory_name_becomes_a_prefix_that_every_tool_takes(name: str, prefix: str) -> None:
    assert clean_prefix(name) == prefix
