"""When a limit ends, from what an agent CLI says about it (reference/runtimes.md §5)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

MARGIN: Final = timedelta(seconds=60)
HORIZON: Final = timedelta(days=8)

_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)
_JUST_OVER: Final = timedelta(minutes=5)
_TEXT: Final = re.compile(
    r"resets (?:(?P<month>[A-Z][a-z]{2}) (?P<day>\d{1,2}), )?(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))?(?P<half>am|pm) "
    r"\((?P<zone>[\w+/-]+)\)"
)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def reset_time(told: Iterable[tuple[str, object]], *, now: datetime) -> tuple[datetime | None, str]:
    """When to try again, and where that was read: a minute after the first usable time (RT-30).

    Each is told as the place where it stands and epoch seconds, or a time that names the minute only: one of these has
    passed when its minute has. A time that has passed, or is more than eight days ahead, is not used.
    """
    for place, value in told:
        at, grain = (value, _MINUTE) if isinstance(value, datetime) else (_instant(value), timedelta())
        if at is not None and now < at + grain and at <= now + HORIZON:
            return at + MARGIN, place
    return None, ""


def named_time(text: str, now: datetime) -> datetime | None:
    """`resets 6:36am (UTC)` is the next such time, `resets Nov 25, 8:44pm (UTC)` the next such day."""
    found = _TEXT.search(text)
    if found is None:
        return None
    try:
        here = now.astimezone(ZoneInfo(found["zone"]))
        hour = int(found["hour"]) % 12 + (12 if found["half"] == "pm" else 0)
        at = here.replace(hour=hour, minute=int(found["minute"] or 0), second=0, microsecond=0)
        if found["month"] is None:
            return next_such(at, here).astimezone(UTC)
        at = at.replace(month=_MONTHS.index(found["month"]) + 1, day=int(found["day"]))
        # No year is named: in December a day of January is one of the next year.
        return (at if at > here - timedelta(days=180) else at.replace(year=at.year + 1)).astimezone(UTC)
    except (ValueError, KeyError, OSError, OverflowError):
        return None  # no such zone, month, day or hour


def next_such(at: datetime, here: datetime) -> datetime:
    """The next time with the time of day of `at`, which lies on the day of `here`.

    One just over is that one and not tomorrow's: between clocks that differ a little, a day of waiting is the worse
    mistake.
    """
    earliest = here - _JUST_OVER
    if at < earliest:
        return at + _DAY
    return at - _DAY if at - _DAY >= earliest else at


def zone_of(tz: str | None) -> tzinfo | None:
    """The zone of a child whose `TZ` that is; None, which is this process' own, when it has none of its own.

    One that cannot be read is UTC, as it is for the child.
    """
    if tz is None:
        return None
    try:
        return ZoneInfo(tz.removeprefix(":"))
    except (ValueError, KeyError, OSError):
        return UTC


def _instant(value: object) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
