from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.runtimes.reset_time import HORIZON, MARGIN, next_such, reset_time, zone_of

NOW = datetime(2026, 11, 21, 6, 35, 20, tzinfo=UTC)
SOON = NOW + timedelta(hours=1)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([], (None, "")),
        ([("event", SOON.timestamp()), ("text", NOW)], (SOON + MARGIN, "event")),
        ([("event", None), ("text", SOON)], (SOON + MARGIN, "text")),
        ([("event", NOW.timestamp()), ("text", SOON)], (SOON + MARGIN, "text")),
        ([("event", NOW.timestamp() - 20)], (None, "")),
        ([("text", NOW - timedelta(seconds=20))], (NOW + timedelta(seconds=40), "text")),
        ([("text", NOW - timedelta(seconds=60))], (None, "")),
        ([("event", (NOW + HORIZON).timestamp())], (NOW + HORIZON + MARGIN, "event")),
        ([("event", (NOW + HORIZON).timestamp() + 1)], (None, "")),
    ],
)
def test_the_first_usable_time_counts_and_a_minute_is_added(
    told: list[tuple[str, object]], expected: tuple[datetime | None, str]
) -> None:
    assert reset_time(told, now=NOW) == expected


@given(st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2030, 1, 1)), st.integers(0, 24 * 60 - 1))
def test_a_time_of_day_is_within_the_next_day_or_just_over(here: datetime, minute: int) -> None:
    at = next_such(here.replace(hour=minute // 60, minute=minute % 60, second=0, microsecond=0), here)

    assert (at.hour * 60 + at.minute) == minute
    assert timedelta(minutes=-5) <= at - here < timedelta(days=1, minutes=-5)


def test_the_zone_of_a_child_is_what_its_tz_says() -> None:
    assert zone_of(None) is None
    assert zone_of("America/New_York") == zone_of(":America/New_York") == ZoneInfo("America/New_York")
    assert [zone_of(odd) for odd in ("", "Nowhere/At_All", "../etc", "UTC0", "a\0b", "/etc/localtime")] == [UTC] * 6
