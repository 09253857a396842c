"""Every line of a store that cannot be read, not only the first: for a person who has to mend them."""

from __future__ import annotations

from pathlib import Path

from hew_loop.trackers.beads_format import BadLine, parse_line


def damaged_lines(store: Path) -> tuple[tuple[int, str], ...]:
    """Line numbers from 1, each with what is wrong; none where there is no file. Raises OSError."""
    try:
        raw = (store / "issues.jsonl").read_bytes()
    except FileNotFoundError:
        return ()
    found: list[tuple[int, str]] = []
    seen: dict[str, int] = {}
    for number, piece in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            line = parse_line(piece)
        except BadLine as error:
            found.append((number, str(error)))
            continue
        if line.id in seen:
            found.append((number, f"its id {line.id!r} stands in line {seen[line.id]} already"))
        elif line.id:
            seen[line.id] = number
    return tuple(found)
