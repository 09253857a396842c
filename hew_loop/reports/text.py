"""Make what others wrote harmless: a title, an id or a message may not steer a terminal, a diagram or a shell (P13)."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta

from rich.cells import cell_len, set_cell_size

_MERMAID_PLAIN = frozenset(" _.,/+-()")


def plain(text: str, *, max_chars: int = 500) -> str:
    """One line that a terminal only prints: white space folded, everything that it could obey written as an escape."""
    line = " ".join(text[: 4 * max_chars].split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
    return shown if len(shown) <= max_chars else f"{shown[: max_chars - 3]}..."


def cut(text: str, width: int) -> str:
    """`text` in at most `width` columns of a terminal; wide characters count two."""
    return text if cell_len(text) <= width else f"{set_cell_size(text, max(width - 3, 0)).rstrip()}..."


def pad(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def ascii_only(text: str) -> str:
    return plain(text).encode("ascii", "backslashreplace").decode("ascii")


def mermaid(text: str) -> str:
    """For a label in double quotes. All but letters and digits become entities: no quote, tag, directive or fence."""
    return "".join(c if c.isalnum() or c in _MERMAID_PLAIN else f"#{ord(c)};" for c in plain(text))


def dot(text: str) -> str:
    """For a label in double quotes; Graphviz reads backslashes and HTML entities in it."""
    return plain(text).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')


def word(text: str) -> str:
    """For a command line that a person copies: one word of it, whatever it holds."""
    return shlex.quote(plain(text))


def duration(seconds: float) -> str:
    """`12s`, `3m 05s`, `2h 00m 07s`; tenths below ten seconds."""
    if 0 < seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(max(seconds, 0))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h {minutes:02}m {rest:02}s"
    return f"{minutes}m {rest:02}s" if minutes else f"{rest}s"


def between(start: datetime, end: datetime) -> float:
    """Seconds from `start` to `end`, never negative: clocks of two machines differ."""
    return max((end - start) / timedelta(seconds=1), 0.0)


def utc(at: datetime) -> str:
    """`2026-01-31 22:15:09Z`"""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def clock(at: datetime) -> str:
    """`22:15:09Z`"""
    return f"{at.astimezone(UTC):%H:%M:%S}Z"


def plural(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`"""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(size_bytes: int) -> str:
    """`830 B`, `12.4 MB`: decimal units, as `ls --si` has them."""
    number = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
