"""Where the boxes of a markdown checklist are: its list items, by CommonMark's rules, as places in the file's bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_LINE: Final = re.compile(r"([^\r\n]*)(?:\r\n|\n|\r|$)")
_MARKER: Final = re.compile(r"(?:[-*+]|(\d{1,9})[.)])(?=[ \t]|$)")
_BOX: Final = re.compile(r"\[([ xX!])\][ \t]+(?=[^ \t])")
_BOX_BY_EYE: Final = re.compile(
    r"[ \t>]*(?:[-*+]|\d{1,9}[.)])[ \t]*\[(?:\s*[xX]\s*|[^\w\[\]]{0,3})\](?![(:])", re.ASCII
)
_HEADING: Final = re.compile(r"(#{1,6})(?=[ \t]|$)")
_CLOSING_MARKS: Final = re.compile(r"(?:^|[ \t])#+$")
_UNDERLINE: Final = re.compile(r"(?:(=+)|-+)[ \t]*$")
_RULE: Final = re.compile(r"([-*_])(?:[ \t]*\1){2,}[ \t]*$")
_FENCE: Final = re.compile(r"(`{3,})[^`]*$|(~{3,})")
_RAW_TAGS: Final = "script|pre|style|textarea"
_RAW: Final = (
    (re.compile(r"<!--"), re.compile(r"-->")),
    (re.compile(rf"<(?:{_RAW_TAGS})(?=[ \t>]|$)", re.IGNORECASE), re.compile(rf"</(?:{_RAW_TAGS})>", re.IGNORECASE)),
    (re.compile(r"<\?"), re.compile(r"\?>")),
    (re.compile(r"<!\[CDATA\["), re.compile(r"\]\]>")),
)
"""HTML blocks in which nothing is markdown, with what ends them. In a `<details>` the boxes count."""
_COMMENT: Final = re.compile(r"<!--.*?(?:-->|$)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_BOM: Final = "\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Item:
    """One list item with a box."""

    line: int
    at: int
    """Offset of the byte between the brackets."""
    mark: str
    """` ` to do, `x` or `X` done, `!` set aside."""
    title: str
    """Its first line without comments."""
    body: str
    """The comments of its first line, then the lines below it that belong to no other item, without their indent."""
    section: tuple[str, ...]
    """The headings above it, outermost first."""
    parent: int | None
    """Index of the item that it stands below."""


@dataclass(frozen=True, slots=True)
class Checklist:
    items: tuple[Item, ...]
    unclear: tuple[tuple[int, str], ...]
    """Number and text of lines in which a reader sees a box and we do not: `[-]`, `[]`, no space or text, too deep."""


def parse(raw: bytes) -> Checklist:
    """Any bytes are a checklist, if only one without items. Boxes in code, comments and quotes do not count."""
    # One character per byte, so that a place in the text is a place in the file.
    text = raw.decode("latin-1")
    scan = _Scan()
    at = len(_BOM) if text.startswith(_BOM) else 0
    number = 0
    while at < len(text):
        line = _LINE.match(text, at)
        if line is None:
            break
        number += 1
        scan.line(number, line.start(), line[1])
        at = line.end()
    return Checklist(tuple(scan.items()), tuple(scan.unclear))


def marked(raw: bytes, marks: Mapping[int, str]) -> bytes:
    """`raw` with other marks at these offsets; not another byte differs."""
    changed = bytearray(raw)
    for at, mark in marks.items():
        changed[at : at + 1] = mark.encode("ascii")
    return bytes(changed)


@dataclass(slots=True)
class _Level:
    """An open list item, with a box or without one."""

    content: int
    """The column from which on a line belongs to it."""
    draft: int | None
    is_empty: bool = False


@dataclass(slots=True)
class _Draft:
    line: int
    at: int
    mark: str
    text: str
    section: tuple[str, ...]
    parent: int | None
    content: int
    body: list[str] = field(default_factory=list[str])


class _Scan:
    """Line after line: which list items are open, and whether a fence, an HTML block or a paragraph is."""

    def __init__(self) -> None:
        self.unclear: list[tuple[int, str]] = []
        self._drafts: list[_Draft] = []
        self._open: list[_Level] = []
        self._headings: list[tuple[int, str]] = []
        self._until: re.Pattern[str] | None = None
        self._is_fence = False
        self._paragraph: list[str] | None = None
        self._is_quoted = False

    def items(self) -> Iterator[Item]:
        for draft in self._drafts:
            comments = [_decoded(found) for found in _COMMENT.findall(draft.text)]
            body = "\n".join([*comments, *map(_decoded, draft.body)]).strip("\n")
            yield Item(draft.line, draft.at, draft.mark, _title(draft.text), body.rstrip(), draft.section, draft.parent)

    def line(self, number: int, start: int, text: str) -> None:
        i, column = _skip(text, 0, 0)
        if i == len(text):
            self._blank()
            return
        kept = 0
        while kept < len(self._open) and column >= self._open[kept].content:
            self._open[kept].is_empty = False
            kept += 1
        if self._until is not None and kept == len(self._open):
            self._raw_line(text, i, column)
            return
        self._until = None
        if not self._block(number, start, text, i, column, kept):
            self._keep(text)
            if _BOX_BY_EYE.match(text):
                self.unclear.append((number, _title(text)))

    def _blank(self) -> None:
        if self._until is None:
            self._paragraph = None
            if self._open and self._open[-1].is_empty:
                self._open.pop()
        self._keep("")

    def _raw_line(self, text: str, i: int, column: int) -> None:
        self._keep(text)
        if self._until is None or (self._is_fence and column - self._base(len(self._open)) >= 4):
            return
        if self._until.match(text, i) if self._is_fence else self._until.search(text, i):
            self._until = None

    def _block(self, number: int, start: int, text: str, i: int, column: int, kept: int) -> bool:
        """Take in a line of which the first `kept` open items keep hold; True when it is an item with a box."""
        while column - self._base(kept) < 4:
            if (marker := self._marker(text, i, kept)) is None:
                if self._leaf(text, i, kept):
                    return False
                break
            self._close(kept)
            after = column + len(marker[0])
            i, column = _skip(text, marker.end(), after)
            # Five columns after a marker: code begins there, and the item one column after its marker.
            is_blank, is_code = i == len(text), column - after > 4
            level = _Level(after + 1 if is_blank or is_code else column, None, is_blank)
            if not is_code and (box := _BOX.match(text, i)) and _title(text[box.end() :]):
                self._add(number, start + box.start(1), box[1], text[box.end() :], level)
                return True
            self._open.append(level)
            kept = len(self._open)
            if is_blank:
                return False
        self._text(text, i, kept, is_code=column - self._base(kept) >= 4)
        return False

    def _marker(self, text: str, i: int, kept: int) -> re.Match[str] | None:
        marker = None if _RULE.match(text, i) else _MARKER.match(text, i)
        if marker and self._goes_on(kept):
            # In the middle of a paragraph only the number 1 begins a list, and nothing empty does.
            is_empty = _skip(text, marker.end(), 0)[0] == len(text)
            return None if is_empty or int(marker[1] or 1) != 1 else marker
        return marker

    def _leaf(self, text: str, i: int, kept: int) -> bool:
        """Take in a line that is neither a list item nor text."""
        if self._goes_on(kept) and (under := _UNDERLINE.match(text, i)):
            if self._paragraph and not self._open:
                self._head(1 if under[1] else 2, " ".join(self._paragraph))
            self._close(kept)
        elif text.startswith(">", i):
            self._close(kept)
            self._paragraph, self._is_quoted = [] if text[i:].strip("> \t") else None, True
        elif heading := _HEADING.match(text, i):
            self._close(kept)
            if not self._open:
                self._head(len(heading[1]), _CLOSING_MARKS.sub("", text[heading.end() :].strip(" \t")))
        elif fence := _FENCE.match(text, i):
            self._close(kept)
            ticks = fence[1] or fence[2]
            self._until, self._is_fence = re.compile(rf"{ticks[0]}{{{len(ticks)},}}[ \t]*$"), True
        elif ends := [end for begin, end in _RAW if begin.match(text, i)]:
            self._close(kept)
            self._until, self._is_fence = None if ends[0].search(text, i) else ends[0], False
        elif _RULE.match(text, i):
            self._close(kept)
        else:
            return False
        return True

    def _text(self, text: str, i: int, kept: int, *, is_code: bool) -> None:
        line = text[i:].rstrip(" \t")
        if self._paragraph is not None:
            # It goes on with the paragraph, even from a column left of the item that holds it.
            self._paragraph.append(line)
        else:
            self._close(kept)
            self._paragraph = None if is_code else [line]

    def _add(self, number: int, at: int, mark: str, text: str, level: _Level) -> None:
        level.draft = len(self._drafts)
        parent = next((one.draft for one in reversed(self._open) if one.draft is not None), None)
        section = tuple(title for _, title in self._headings)
        self._drafts.append(_Draft(number, at, mark, text, section, parent, level.content))
        self._open.append(level)
        self._paragraph = []

    def _close(self, kept: int) -> None:
        """End the paragraph, and the items that do not keep hold of the line."""
        del self._open[kept:]
        self._paragraph, self._is_quoted = None, False

    def _keep(self, line: str) -> None:
        """Give the line to the innermost item with a box."""
        draft = next((self._drafts[one.draft] for one in reversed(self._open) if one.draft is not None), None)
        if draft is not None:
            draft.body.append(_without_indent(line, draft.content))

    def _goes_on(self, kept: int) -> bool:
        """An open paragraph stands where the line stands, not deeper or in a quote."""
        return self._paragraph is not None and kept == len(self._open) and not self._is_quoted

    def _head(self, depth: int, title: str) -> None:
        while self._headings and self._headings[-1][0] >= depth:
            self._headings.pop()
        self._headings.append((depth, _title(title)))

    def _base(self, kept: int) -> int:
        return self._open[kept - 1].content if kept else 0


def _skip(text: str, i: int, column: int) -> tuple[int, int]:
    """Past spaces and tabs; a tab goes to the next column that four divides."""
    while i < len(text) and text[i] in " \t":
        column += 1 if text[i] == " " else 4 - column % 4
        i += 1
    return i, column


def _without_indent(line: str, columns: int) -> str:
    i, column = _skip(line, 0, 0)
    return " " * max(column - columns, 0) + line[i:]


def _title(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", _decoded(_COMMENT.sub(" ", text))).split())


def _decoded(text: str) -> str:
    """The text that the bytes mean: UTF-8, else each byte as Latin-1 has it."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return text
