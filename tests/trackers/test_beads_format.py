"""What the file keeps byte for byte, what it says about a bad line, and that nothing is written then."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.errors import TrackerError
from hew_loop.trackers.bd_json import read_task
from hew_loop.trackers.beads_format import changed_line, encode, parse_line
from hew_loop.trackers.beads_issue import NewIssue
from tests.trackers.beads_files import edge, issue, store, write

EXPORTED = (
    '{"_type":"issue","id":"tt-z","title":"Task z","description":"x \\u003cy\\u003e \\u0026 é 日本","status":"open",'
    '"priority":2,"issue_type":"task","owner":"git@example.org","created_at":"2026-01-01T00:00:01Z",'
    '"created_by":"loop/w1","updated_at":"2026-01-01T00:00:01Z","labels":["a","b"],"dependencies":[{"issue_id":"tt-z",'
    '"depends_on_id":"tt-b","type":"blocks","created_at":"2026-01-01T00:00:01Z","created_by":"loop/w1",'
    '"metadata":"{}"}],"comments":[{"id":"0-1","issue_id":"tt-z","author":"loop/w1","text":"hi",'
    '"created_at":"2026-01-01T00:00:04Z"}],"dependency_count":1,"dependent_count":0,"comment_count":1}'
)


def test_a_claim_changes_its_members_in_an_exported_line_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "issues.jsonl").write_text(EXPORTED + "\n")
    assert store(tmp_path).claim("tt-z", "me") == ""
    expected = (
        EXPORTED.replace('"status":"open"', '"status":"in_progress"')
        .replace('"owner"', '"assignee":"me","owner"')
        .replace(
            '"updated_at":"2026-01-01T00:00:01Z"',
            '"updated_at":"2026-06-01T12:00:00Z","started_at":"2026-06-01T12:00:00Z"',
        )
    )
    assert (tmp_path / "issues.jsonl").read_text() == expected + "\n"


def test_unknown_members_and_numbers_as_they_are_spelt_survive_a_change() -> None:
    raw = '{"zeta":[1.10,1e400,{"b":1E5,"a":null}],"id":"tt-a","own":{"x":true},"title":"t","metadata":{"n":-0.0}}'
    line = changed_line(parse_line(raw.encode()), {"status": "closed"})
    assert line.raw.decode() == raw.replace('"title":"t"', '"title":"t","status":"closed"')


ODD = (
    '\ufeff{"_schema":"beads","version":1}\r\n'
    '{ "id" : "tt-b" , "title" : "spaced", "zeta": 1.50 }\r\n'
    "\n"
    '{"_type":"memory","key":"k","value":"v"}\n'
    '{"id":"tt-c","title":"c","status":"tombstone","deleted_by":"A"}\n'
    "  \n"
    '{"id":"tt-d","title":"no newline"}'
)


def test_bom_crlf_blank_lines_header_memories_and_spaces_survive_a_change_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "issues.jsonl"
    file.write_bytes(ODD.encode())
    store(tmp_path).note("tt-d", "n")
    changed = '{"id":"tt-d","title":"no newline","notes":"n","updated_at":"2026-06-01T12:00:00Z"}\n'
    assert file.read_bytes() == (ODD.rpartition("\n")[0] + "\n" + changed).encode()
    store(tmp_path).note("tt-b", "n")
    assert b'{"id":"tt-b","title":"spaced","notes":"n","updated_at":"2026-06-01T12:00:00Z","zeta":1.50}\r\n' in (
        file.read_bytes()
    )


def test_issues_are_sorted_by_the_bytes_of_their_ids_and_other_lines_stay_in_place(tmp_path: Path) -> None:
    ids = ["tt-b", "tt-é", "tt-a.10", "tt-Z", "tt-a"]
    memory = {"_type": "memory", "key": "k", "value": "v"}
    write(tmp_path, [{"_schema": 1}, issue(ids[0]), memory, *(issue(each) for each in ids[1:]), memory])
    store(tmp_path).note("tt-a", "n")
    written = [json.loads(line) for line in (tmp_path / "issues.jsonl").read_text().splitlines()]
    kinds = [line.get("id") or line.get("_type") or "schema" for line in written]
    assert kinds == ["schema", "tt-Z", "memory", "tt-a", "tt-a.10", "tt-b", "tt-é", "memory"]


def test_a_new_issue_goes_to_its_place_before_the_memories_at_the_end(tmp_path: Path) -> None:
    write(tmp_path, [issue("tt-000"), issue("tt-zzz"), {"_type": "memory", "key": "k", "value": "v"}])
    new = store(tmp_path).add(NewIssue("new"), creator="ann")
    written = [json.loads(line) for line in (tmp_path / "issues.jsonl").read_text().splitlines()]
    assert [line.get("id") for line in written] == ["tt-000", new, "tt-zzz", None]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"id":"tt-x","title":', "it is not JSON (Expecting value: line 1 column 22 (char 21))"),
        (b"[1]", "it is not a JSON object"),
        (b'{"title":"x"}', "its id is missing"),
        (b'{"id":7,"title":"x"}', "its id is not a text"),
        (b'{"id":"tt-x","title":7}', "its title is not a text"),
        (b'{"id":"tt-x","priority":"high"}', "its priority 'high' is not a number from 0 to 4"),
        (b'{"id":"tt-x","priority":true}', "its priority True is not a number from 0 to 4"),
        (b'{"id":"tt-x","created_at":"yesterday"}', "'yesterday' is not a time"),
        (b'{"id":"tt-x","updated_at":5}', "5 is not a time"),
        (b'{"id":"tt-x","labels":"x"}', "its labels are not a list of texts"),
        (b'{"id":"tt-x","dependencies":[{"type":"blocks"}]}', "its dependencies are not a list of edges"),
        (b'{"id":"tt-x","dependencies":["tt-a"]}', "its dependencies are not a list of edges"),
        (b'{"id":"tt-x","n":NaN}', "it is not JSON (NaN is no number)"),
        (b'{"id":"tt-x","title":"\xff"}', "it is not UTF-8"),
        (b"<<<<<<< HEAD", "it is a git conflict marker; resolve the merge first"),
        (b"=======", "it is a git conflict marker; resolve the merge first"),
        (b">>>>>>> other", "it is a git conflict marker; resolve the merge first"),
        (b'{"id":"tt-a","title":"twice"}', "its id 'tt-a' stands in line 2 already"),
        (b"[" * 100_000, "it is not JSON (maximum recursion depth exceeded while decoding a JSON array from a unicode"),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_nothing_is_written(tmp_path: Path, bad: bytes, reason: str) -> None:
    file = write(tmp_path, [{"_schema": 1}, issue("tt-a")])
    file.write_bytes(file.read_bytes() + b"\n" + bad + b"\n")
    before = file.read_bytes()
    for act in (
        lambda: store(tmp_path).read(),
        lambda: store(tmp_path).claim("tt-a", "me"),
        lambda: store(tmp_path).add(NewIssue("x"), creator="ann"),
    ):
        with pytest.raises(TrackerError) as caught:
            act()
        assert caught.value.message.startswith(f"{file}, line 4: {reason}")
        assert caught.value.exit_code == 69
    assert file.read_bytes() == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_what_is_encoded_is_utf8_on_one_line_and_reads_back(value: Any) -> None:
    text = encode(value)
    assert json.loads(text.encode()) == value
    assert not set("\n\r\u2028\u2029<>&") & set(text)


@given(st.dictionaries(st.text(string.ascii_lowercase + "_", min_size=1), JSON, max_size=5), st.text())
def test_a_round_trip_through_a_change_keeps_every_unknown_member(extra: dict[str, Any], note: str) -> None:
    before = {**{f"x-{name}": value for name, value in extra.items()}, **issue("tt-a")}
    line = parse_line(json.dumps(before).encode())
    after = changed_line(line, {"notes": note, "assignee": "me"})
    assert after.issue == {**before, "notes": note, "assignee": "me"}
    back = changed_line(after, {"notes": None, "assignee": None})
    assert list((back.issue or {}).items()) == list(before.items())


def test_a_gate_is_read_from_metadata_in_either_form_and_damage_is_no_gate() -> None:
    for metadata, gate in [
        ('{"gate": "any-children"}', "any-children"),
        ({"gate": "any-children"}, "any-children"),
        ("{}", ""),
        ("", ""),
        ("{broken", ""),
        ('{"gate": 3}', ""),
        ("[]", ""),
    ]:
        made = edge("tt-a", "tt-b", "waits-for", metadata=metadata)
        task = parse_line(json.dumps(issue("tt-a", dependencies=[made])).encode()).task
        assert task is not None
        assert [each.gate for each in task.edges] == [gate]


def test_a_task_mentions_the_paths_of_all_its_texts_but_the_notes() -> None:
    texts = {
        "title": "Mend src/a.py",
        "description": "see `docs/b.md`",
        "design": "as in lib/",
        "acceptance_criteria": "tests/c.py passes",
        "notes": "tried src/d.py",
    }
    task = parse_line(json.dumps(issue("tt-a", **texts)).encode()).task
    assert task is not None
    assert task.mentions == ("docs/b.md", "lib/", "src/a.py", "tests/c.py")
    assert read_task({"id": "tt-a", "title": "T", "priority": 2, "description": 7, "design": "x/y.py"}) == replace(
        task, title="T", created_at=datetime(1, 1, 1, tzinfo=UTC), mentions=("x/y.py",)
    )
