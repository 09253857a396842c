"""When a limit ends, from what an agent CLI says about it (reference/runtimes.md §5)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

MARGIN: Final = timedelta(seconds=60)
HORIZON: Final = timedelta(days=8)

_TEXT: Final = re.compile(
    r"resets (?:(?P<month>[A-Z][a-z]{2}) (?P<day>\d{1,2}), )?(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))?(?P<half>am|pm) "
    r"\((?P<zone>[\w+/-]+)\)"
)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def reset_time(*, epochs: Iterable[object], text: str, now: datetime) -> datetime | None:
    """When to try again: a minute after the first usable time, epoch seconds before the text (RT-30).

    A time that has passed, or is more than eight days ahead, is not used.
    """
    for at in (*map(_instant, epochs), _in_text(text, now)):
        if at is not None and now < at <= now + HORIZON:
            return at + MARGIN
    return None


def _instant(value: object) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _in_text(text: str, now: datetime) -> datetime | None:
    """`resets 6:36am (UTC)` is the next such time, `resets Nov 25, 8:44pm (UTC)` the next such day."""
    found = _TEXT.search(text)
    if found is None:
        return None
    try:
        here = now.astimezone(ZoneInfo(found["zone"]))
        hour = int(found["hour"]) % 12 + (12 if found["half"] == "pm" else 0)
        at = here.replace(hour=hour, minute=int(found["minute"] or 0), second=0, microsecond=0)
        if found["month"] is None:
            return (at if at > here else at + timedelta(days=1)).astimezone(UTC)
        at = at.replace(month=_MONTHS.index(found["month"]) + 1, day=int(found["day"]))
        # No year is named: in December a day of January is one of the next year.
        return (at if at > here - timedelta(days=180) else at.replace(year=at.year + 1)).astimezone(UTC)
    except (ValueError, KeyError, OSError, OverflowError):
        return None  # no such zone, month, day or hour
