"""Which lines of a markdown file are items of a checklist, and that nothing but their marks ever changes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.trackers.checklist_format import Item, marked, parse


def boxes(text: str) -> list[tuple[int, str, str]]:
    return [(item.line, item.mark, item.title) for item in parse(text.encode()).items]


@pytest.mark.parametrize(
    ("line", "mark", "title"),
    [
        ("- [ ] brew", " ", "brew"),
        ("* [x] brew", "x", "brew"),
        ("+ [X] brew", "X", "brew"),
        ("- [!] brew", "!", "brew"),
        ("1. [ ] brew", " ", "brew"),
        ("27) [x] brew", "x", "brew"),
        ("   - [ ] brew", " ", "brew"),
        ("-\t[ ]\tbrew\t", " ", "brew"),
        ("- - [ ] brew", " ", "brew"),
        ("- [ ] brew  <- next", " ", "brew <- next"),
        ("- [ ] brew <!-- hew:model=x --> tea", " ", "brew tea"),
        ("- [ ] brew <!-- to be", " ", "brew"),
        ("- [ ] `[ ]` [x] brew", " ", "`[ ]` [x] brew"),
        ("- [ ] # brew", " ", "# brew"),
        ("- [ ] br\x1bew\x00", " ", "br ew"),
        ("\ufeff- [ ] brew", " ", "brew"),
        ("- [ ] brühen 日本", " ", "brühen 日本"),
    ],
)
def test_an_item_has_a_marker_a_box_and_a_text(line: str, mark: str, title: str) -> None:
    assert boxes(line) == [(1, mark, title)]
    assert boxes(f"{line}\n") == [(1, mark, title)]
    assert boxes(f"{line}\r\n{line.removeprefix(chr(0xFEFF))}\r\n") == [(1, mark, title), (2, mark, title)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "brew",
        "[ ] brew",
        "- brew [ ]",
        "- [y] brew",
        "- [a](b) brew",
        "- [x](b) brew",
        "-- [ ] brew",
        "```\n- [ ] brew\n```",
        "~~~~ python\n- [ ] brew\n~~~\n- [ ] brew",
        "   ```\n- [ ] brew",
        "- x\n\n  ```\n  - [ ] brew\n  ```",
        "- ```\n  - [ ] brew\n  ```",
        "<!-- - [ ] brew -->",
        "<!--\n- [ ] brew\n\n- [ ] brew\n-->",
        "<pre>\n- [ ] brew\n\n</pre>",
    ],
)
def test_text_code_and_comments_hold_no_items(text: str) -> None:
    assert parse(text.encode()).items == ()
    assert parse(text.encode()).unclear == ()


@pytest.mark.parametrize(
    "line",
    [
        "- [] brew",
        "- [-] brew",
        "- [~] brew",
        "- [x ] brew",
        "- [\u00a0] brew",
        "- [ ]brew",
        "-[ ] brew",
        "- [ ]",
        "- [ ] <!-- brew -->",
        "> - [ ] brew",
        "    - [ ] brew",
        "\t- [ ] brew",
        "-     [ ] brew",
    ],
)
def test_what_only_looks_like_an_item_is_named_so_that_nothing_vanishes_silently(line: str) -> None:
    found = parse(f"# Tea\n\n{line}\n".encode())
    assert found.items == ()
    assert [number for number, _ in found.unclear] == [3]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("```\nx\n```\n- [ ] a", [4]),
        ("````\n```\n- [ ] no\n````\n- [ ] a", [5]),
        ("- x\n  ```\n  - [ ] no\n- [ ] a", [4]),
        ("<!-- x -->\n- [ ] a", [2]),
        ("<details>\n- [ ] a\n</details>", [2]),
        ("Text\n- [ ] a\n1. [ ] b", [2, 3]),
        ("Text\n2. [ ] no", []),
        ("- x\n    - [ ] a\n        - [ ] b", [2, 3]),
        ("> quote\n2) [ ] a", [2]),
        ("- - -\n- [ ] a", [2]),
        ("-\n  - [ ] a", [2]),
        ("-\n\n  - [ ] a", [3]),
        ("`` ` ``` x\n- [ ] a", [2]),
        ("```x`\n- [ ] a", [2]),
        ("- [ ] a\r- [ ] b\r\n- [ ] c\n\r- [ ] d", [1, 2, 3, 5]),
        ("- [ ] a\x0b- [ ] no\u2028- [ ] no\x85- [ ] no", [1]),
    ],
)
def test_blocks_begin_and_end_where_markdown_says(text: str, lines: list[int]) -> None:
    assert [item.line for item in parse(text.encode()).items] == lines


def test_items_know_their_sections_parents_and_notes() -> None:
    text = """\
# Tea ##

- [ ] brew <!-- hew:model=big -->
  with *fresh* water
  - note

      code
\t- [x] boil
\t  to the end
  - plain
    - [!] cool
lazy

back
Cups
----
1. [ ] wash
### Deep
* [ ] dry
## Other
+ [ ] stack
"""
    assert parse(text.encode()).items == (
        Item(3, text.index("[ ] brew") + 1, " ", "brew", BREW, ("Tea",), None),
        Item(8, text.index("[x] boil") + 1, "x", "boil", "to the end", ("Tea",), 0),
        Item(11, text.index("[!] cool") + 1, "!", "cool", "lazy", ("Tea",), 0),
        Item(17, text.index("[ ] wash") + 1, " ", "wash", "", ("Tea", "back Cups"), None),
        Item(19, text.index("[ ] dry") + 1, " ", "dry", "", ("Tea", "back Cups", "Deep"), None),
        Item(21, text.index("[ ] stack") + 1, " ", "stack", "", ("Tea", "Other"), None),
    )


BREW = """\
<!-- hew:model=big -->
with *fresh* water
- note

    code
- plain"""


def test_bytes_that_are_not_utf8_are_read_as_latin1_line_by_line() -> None:
    raw = b"- [ ] br\xfchen\n- [ ] br\xc3\xbchen\n"
    assert [item.title for item in parse(raw).items] == ["brühen", "brühen"]


PIECES = st.sampled_from(
    [
        *("- [ ] a", "* [x] b", "+ [!] c", "1. [ ] d", "2) [X] e", "- - [ ] z", "-\t[ ] t", "- [ ] é\u2028[ ]"),
        *("[ ] no", "- [y] no", "- [ ]no", "- []", "- [-] x", "-     [ ] c", "> - [ ] q", "- [ ] \x00", "[x]"),
        *("```", "~~~", "````", "- ```", "<!--", "-->", "<!-- c -->", "<pre>", "</pre>", "> q", "- plain"),
        *("# H", "## S", "---", "===", "- # h", "***", "-", "1.", "text", ""),
    ]
).map(str.encode)
INDENTS = st.sampled_from(["", "", "  ", "   ", "    ", "\t", "      ", "  \t"]).map(str.encode)
ENDS = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r", b"\x85\n", b" \n"])
LINES = st.tuples(INDENTS, PIECES | st.binary(max_size=6), ENDS).map(b"".join)
MARKDOWN = st.builds(bytes.__add__, st.sampled_from([b"", b"\xef\xbb\xbf"]), st.lists(LINES, max_size=14).map(b"".join))


@given(MARKDOWN, st.data())
def test_marks_change_and_every_other_byte_survives(raw: bytes, data: st.DataObject) -> None:
    before = parse(raw).items
    marks = {item.at: data.draw(st.sampled_from(" xX!")) for item in before if data.draw(st.booleans())}
    after = marked(raw, marks)
    assert len(after) == len(raw)
    assert {n for n in range(len(raw)) if raw[n] != after[n]} <= set(marks)
    assert all(re.fullmatch(rb"\[[ xX!]\]", raw[item.at - 1 : item.at + 2]) for item in before)
    # What counts as an item, and what it says, does not hang on any mark.
    assert [(i.at, i.title, i.body, i.section, i.parent) for i in parse(after).items] == [
        (i.at, i.title, i.body, i.section, i.parent) for i in before
    ]
    assert [i.mark for i in parse(after).items] == [marks.get(i.at, i.mark) for i in before]


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(raw: bytes) -> None:
    for item in parse(raw).items:
        item.title.encode()
        item.body.encode()
        assert item.parent is None or 0 <= item.parent < len(parse(raw).items)


def test_ten_thousand_items_at_any_depth_are_read_in_one_pass() -> None:
    text = "".join(f"{'  ' * (n % 40)}- [ ] item {n}\n" for n in range(10_000))
    items = parse(text.encode()).items
    assert len(items) == 10_000
    assert [item.parent for item in items[:3]] == [None, 0, 1]
