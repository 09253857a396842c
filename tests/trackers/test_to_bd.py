"""What bd has to be told: the plan for each era, and on the real bd that it then says what the embedded store does."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hew_loop.trackers.bd_call import Bd
from hew_loop.trackers.beads_export import export
from hew_loop.trackers.beads_file import BeadsFile, Snapshot
from hew_loop.trackers.beads_format import parse_line
from hew_loop.trackers.beads_import import edge_data, merge, read_import
from hew_loop.trackers.to_bd import Plan, Wish, plan, version_of
from hew_loop.trackers.to_bd_run import carry_out, held
from tests.support.real_bd import RealBd
from tests.trackers.beads_files import NOON, edge, issue, lines, write

OLD, NEW = (0, 49, 5), (1, 0, 5)
LATER, LATEST = "2026-03-01T00:00:00Z", "9999-12-31T23:59:59Z"
BOTH = pytest.mark.parametrize("version", [OLD, NEW], ids=["0.49", "1.0"])
WAIT = {"metadata": '{"gate":"any-children"}'}


def snapshot(*records: dict[str, Any]) -> Snapshot:
    return Snapshot(b"", tuple(parse_line(json.dumps(each).encode()) for each in records))


def planned(version: tuple[int, ...], ours: list[dict[str, Any]], bds: list[dict[str, Any]], **wish: bool) -> Plan:
    return plan(snapshot(*ours), snapshot(*bds).lines, Wish(version=version, **wish))


def commands(found: Plan) -> list[str]:
    return [" ".join(step.argv) for step in found.steps]


def sent(found: Plan) -> list[dict[str, Any]]:
    return [json.loads(line) for step in found.steps for line in step.stdin.splitlines()]


@BOTH
def test_nothing_is_planned_where_both_say_the_same(version: tuple[int, ...]) -> None:
    ours = issue("tt-a", labels=["x", "y"], comments=[{"id": 1, "author": "a", "text": "t"}], updated_at=LATER)
    bds = {**ours, "labels": ["y", "x"], "comments": [{"id": "u", "author": "a", "text": "t"}], "estimated_minutes": 0}
    assert planned(version, [ours], [{**bds, "updated_at": "2026-01-01T00:01:00Z", "comment_count": 1}]) == Plan(())


@BOTH
def test_a_new_issue_is_imported_with_its_own_time_and_without_numbers_of_comments(version: tuple[int, ...]) -> None:
    ours = issue("tt-a", comments=[{"id": 7, "author": "a", "text": "t"}], dependencies=[edge("tt-a", "tt-gone")])
    found = planned(version, [ours], [])
    assert commands(found) == ["bd import" if version == OLD else "bd import -"]
    assert sent(found) == [issue("tt-a", comments=[{"author": "a", "text": "t"}])]
    name = "0.49" if version == OLD else "1.0"
    assert found.lost == (f"bd {name}: an edge to what is not there is dropped (tt-a)",)


def test_what_an_import_cannot_carry_goes_by_commands_before_it() -> None:
    bds = [
        issue("tt-a", labels=["-x", "y"], defer_until=LATER, due_at=LATER, dependencies=[edge("tt-a", "tt-b")]),
        issue("tt-b"),
        issue("tt-c"),
    ]
    ours = [issue("tt-a", labels=["y"], spec_id="s p", updated_at=LATER), issue("tt-b")]
    found = planned(NEW, ours, bds)
    assert commands(found) == [
        "bd label remove -- tt-a -x",
        "bd dep remove tt-a tt-b",
        "bd update tt-a --defer= --due= --spec-id=s p",
        "bd import -",
    ]
    # bd's time has moved on by then: a line without a time is never taken for an old one.
    assert sent(found) == [{n: v for n, v in ours[0].items() if n != "updated_at"}]
    assert found.only_in_bd == ("tt-c",)
    assert commands(planned(NEW, ours, bds, delete=True))[0] == "bd delete tt-c --force"


@BOTH
def test_a_change_that_an_import_carries_needs_nothing_else(version: tuple[int, ...]) -> None:
    found = planned(version, [issue("tt-a", title="new", updated_at=LATER)], [issue("tt-a", description="d")])
    assert len(found.steps) == 1
    assert sent(found) == [issue("tt-a", title="new", updated_at=LATEST if version == OLD else LATER)]


@BOTH
def test_what_is_newer_in_bd_is_left_alone_unless_told(version: tuple[int, ...]) -> None:
    ours = [issue("tt-a", title="ours"), issue("tt-b", status="tombstone")]
    bds = [issue("tt-a", updated_at=LATER), issue("tt-b", updated_at=LATER)]
    assert planned(version, ours, bds) == Plan((), newer_in_bd=("tt-b", "tt-a"))
    found = planned(version, ours, bds, overwrite=True)
    assert commands(found)[0] == "bd delete tt-b --force"
    (line,) = sent(found)
    assert (line["title"], line.get("updated_at")) == ("ours", LATEST if version == OLD else None)


def test_the_gate_of_an_edge_is_made_by_create_on_1_x_and_imported_on_0_49() -> None:
    ours = issue("tt-w", dependencies=[edge("tt-w", "tt-s", "waits-for", **WAIT)], updated_at=LATER)
    bds = issue("tt-w", dependencies=[edge("tt-w", "tt-s", "waits-for", metadata="{}")])
    found = planned(NEW, [ours, issue("tt-s")], [bds, issue("tt-s")])
    assert commands(found) == [
        "bd dep remove tt-w tt-s",
        "bd create --title=T tt-w --id=tt-w --force --waits-for=tt-s --waits-for-gate=any-children",
        "bd import -",
    ]
    old = planned(OLD, [ours, issue("tt-s")], [bds, issue("tt-s")])
    assert commands(old) == ["bd dep remove tt-w tt-s", "bd import"]
    assert sent(old)[0]["dependencies"] == ours["dependencies"]
    same = edge("tt-w", "tt-s", "waits-for", metadata='{"gate": "any-children"}', created_by="x")
    assert planned(NEW, [ours, issue("tt-s")], [issue("tt-w", dependencies=[same]), issue("tt-s")]) == Plan(())


def test_another_kind_of_edge_to_the_same_issue_takes_the_place_of_the_first() -> None:
    ours = [issue("tt-a", dependencies=[edge("tt-a", "tt-b", "related")]), issue("tt-b")]
    bds = [issue("tt-a", dependencies=[edge("tt-a", "tt-b")]), issue("tt-b")]
    found = planned(NEW, ours, bds)
    assert commands(found) == ["bd dep remove tt-a tt-b", "bd import -"]
    assert [each["type"] for each in sent(found)[0]["dependencies"]] == ["related"]


def test_the_texts_that_name_a_deleted_issue_are_sent_again() -> None:
    ours = [issue("tt-a", description="see tt-d"), issue("tt-d", status="tombstone", updated_at=LATER)]
    found = planned(NEW, ours, [issue("tt-a", description="see tt-d"), issue("tt-d")])
    assert commands(found) == ["bd delete tt-d --force", "bd import -"]
    # Without a time: the deletion may have moved bd's own.
    assert [(each["description"], each.get("updated_at")) for each in sent(found)] == [("see tt-d", None)]


def test_0_49_closes_by_hand_and_gets_our_time_together_with_another_change() -> None:
    ours = issue("tt-a", status="closed", closed_at=LATER, close_reason="done", updated_at=LATER)
    found = planned(OLD, [ours], [issue("tt-a")])
    assert commands(found) == ["bd close tt-a --reason=done --force", "bd update tt-a --priority=0", "bd import"]
    assert commands(planned(NEW, [ours], [issue("tt-a")])) == ["bd import -"]


def test_0_49_never_meets_two_issues_with_the_same_words() -> None:
    twin = {**issue("tt-b"), "title": "T tt-a", "notes": "n"}
    found = planned(OLD, [issue("tt-a", notes="n"), twin], [issue("tt-a", notes="n")])
    assert commands(found) == ["bd import", "bd update tt-b --notes=n"]
    assert [each["notes"] for each in sent(found)] == ["n\ntt-b"]
    assert commands(planned(NEW, [issue("tt-a", notes="n"), twin], [issue("tt-a", notes="n")])) == ["bd import -"]


def test_what_no_bd_can_take_is_said_in_a_sentence() -> None:
    ours = [issue("tt-a", owner="new"), issue("tt-x.1"), issue("tt-n", closed_by_session="s")]
    memory = {"_type": "memory", "key": "k", "value": "v"}
    found = planned(NEW, [*ours, memory], [issue("tt-a", owner="old"), {**memory, "value": "w"}])
    assert found.lost == (
        "bd 1.0: a child without its parent is refused (tt-x.1)",
        "bd 1.0: closed_by_session is not kept (tt-n)",
        "bd 1.0: owner cannot be changed (tt-a)",
    )
    assert sent(found)[-1] == memory
    buried = planned(OLD, [issue("tt-b"), memory], [issue("tt-b", status="tombstone")])
    assert (buried.steps, buried.lost) == (
        (),
        ("bd 0.49: a deleted issue cannot be brought back (tt-b)", "bd 0.49: memories are not kept (k)"),
    )


def test_an_id_that_looks_like_an_option_stays_an_id() -> None:
    found = planned(NEW, [], [issue("--all")], delete=True)
    assert [step.argv for step in found.steps] == [("bd", "delete", "--force", "--", "--all")]


def test_the_era_of_an_export_is_told_by_its_lines() -> None:
    assert version_of(snapshot({"_type": "issue", **issue("tt-a")}).lines) == (1, 0)
    assert version_of(snapshot(issue("tt-a")).lines) == (0, 49)


# --- on the real bd ---------------------------------------------------------------------------------------------------

AT = "2025-03-01T00:05:00Z"
START = [
    issue(
        "tt-a",
        description="da", design="de", acceptance_criteria="ac", notes="no", spec_id="sp", priority=3, assignee="bob",
        owner="o@e", created_by="ann", estimated_minutes=30, due_at=LATER, defer_until="2025-02-01T00:00:00Z",
        external_ref="gh-1", metadata={"b": 1, "a": 1.5}, labels=["-x", "y", "with space"], sender="me",
        comments=[{"id": 5, "issue_id": "tt-a", "author": "a", "text": "t", "created_at": AT}],
    ),
    issue("tt-b", issue_type="epic"),
    issue("tt-b.1", dependencies=[edge("tt-b.1", "tt-b", "parent-child"), edge("tt-b.1", "tt-a")]),
    issue("tt-c", description="see tt-d", labels=["only"], dependencies=[edge("tt-c", "tt-a"), edge("tt-c", "tt-d")]),
    issue("tt-d"),
    issue("tt-f", status="closed", closed_at=AT, close_reason="done"),
    issue("tt-w", dependencies=[edge("tt-w", "tt-b", "waits-for", metadata="{}")]),
]  # fmt: skip


def edited(before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every kind of change that a person or a run can make; the words may be anything."""
    found = {each["id"]: dict(each) for each in before}
    a = found["tt-a"]
    for name in ("description", "design", "defer_until", "assignee"):
        a.pop(name)
    a |= {"title": "-A <x> 'y' \"z\" $(z) ä", "notes": "two\nlines", "priority": 0, "due_at": "2026-12-01T00:00:00Z"}
    a |= {"labels": ["y", "z,z"], "metadata": {"k": [1, 2]}, "estimated_minutes": 45, "spec_id": "s2"}
    a["comments"] = [*a["comments"], {"id": 9, "author": "me", "text": "-new\n", "created_at": AT}]
    b1 = found["tt-b.1"]
    b1["dependencies"] = [each for each in b1["dependencies"] if each["depends_on_id"] == "tt-b"]
    b1 |= {"status": "closed", "closed_at": AT, "close_reason": "-because"}
    c = found["tt-c"]
    del c["labels"]
    c["dependencies"] = [edge("tt-c", "tt-a", "related")]
    del found["tt-d"]
    f = found["tt-f"]
    f |= {"status": "open", "external_ref": "gh-9"}
    del f["closed_at"], f["close_reason"]
    w = found["tt-w"]
    w["dependencies"] = [edge("tt-w", "tt-b", "waits-for", **WAIT)]
    w |= {"status": "in_progress", "assignee": "zed", "defer_until": "2099-01-01T00:00:00Z"}
    twin = {**c, "id": "tt-g", "created_by": "cc", "created_at": AT}
    twin["dependencies"] = [edge("tt-g", "tt-b", "waits-for", **WAIT)]
    found["tt-g"] = twin
    found["tt-g.1"] = issue("tt-g.1", issue_type="bug", dependencies=[edge("tt-g.1", "tt-g", "parent-child")])
    later = (NOON + timedelta(days=400)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return [{**each, "updated_at": later} for each in found.values()]


def told(each: dict[str, Any]) -> dict[str, Any]:
    """What an issue says: without what bd makes itself (its times of change, counts, numbers and makers of edges)."""
    dropped = {"_type", "updated_at", "dependency_count", "dependent_count", "comment_count", "started_at"}
    plain = {name: value for name, value in each.items() if name not in dropped and value not in ("", [], {}, 0)}
    plain["priority"] = each.get("priority", 0)
    plain["labels"] = sorted(each.get("labels") or ())
    plain["edges"] = sorted(
        (e["depends_on_id"], e["type"], json.dumps(edge_data(e), sort_keys=True))
        for e in each.get("dependencies") or ()
    )
    plain["comments"] = sorted((c["author"], c["text"].strip(), c["created_at"]) for c in each.get("comments") or ())
    plain.pop("dependencies", None)
    return plain


def bring_back(directory: Path, text: str) -> None:
    incoming = read_import(text.encode(), "bd export")
    BeadsFile(directory).update(lambda before: merge(before, incoming, NOON))


@pytest.mark.real_bd
def test_a_round_trip_through_the_real_bd_loses_no_field(tmp_path: Path) -> None:
    bd, embedded = RealBd(tmp_path / "repo").init(), tmp_path / "embedded"
    bd.take(START)
    first = bd.export()
    assert {key: told(each) for key, each in first.items()} == {each["id"]: told(each) for each in START}
    bring_back(embedded, bd.export_text())
    assert {each["id"]: each for each in lines(embedded)} == first

    wanted = edited(lines(embedded))
    write(embedded, wanted)
    store, wish = BeadsFile(embedded).read(), Wish(version=bd.version, delete=True)
    program = Bd(bd.program, bd.store, dict(os.environ))
    version, present = held(program)
    assert version == bd.version
    carry_out(program, store, plan(store, present, wish), wish, actor="ann")
    assert {key: told(each) for key, each in bd.export().items()} == {each["id"]: told(each) for each in wanted}
    assert plan(store, held(program)[1], wish) == Plan(())

    bd.run("update", "tt-a", "--title=again", "--status=blocked")
    bd.run("label", "add", "tt-c", "back")
    bring_back(embedded, bd.export_text())
    after = {each["id"]: each for each in lines(embedded) if each.get("status") != "tombstone"}
    # Ours looks newer still: its clock is ahead in this test. Without that, bd's words are taken.
    assert {key: told(each) for key, each in after.items()} == {each["id"]: told(each) for each in wanted}
    write(embedded, [{**each, "updated_at": AT} for each in wanted])
    bring_back(embedded, bd.export_text())
    after = {each["id"]: each for each in lines(embedded) if each.get("status") != "tombstone"}
    assert {key: told(each) for key, each in after.items()} == {key: told(each) for key, each in bd.export().items()}
    assert (after["tt-a"]["title"], after["tt-c"]["labels"]) == ("again", ["back"])


@pytest.mark.real_bd
def test_a_plain_export_fills_an_empty_store_of_the_real_bd(tmp_path: Path) -> None:
    bd, embedded = RealBd(tmp_path / "repo").init(), tmp_path / "embedded"
    comments = [{"id": "uuid", "author": "a", "text": str(n), "created_at": AT} for n in (1, 2)]
    records = [*edited(START), issue("tt-z.1", title="orphan"), issue("tt-y", comments=comments)]
    # 0.49 takes issues with the same words for one.
    records = [{**each, "title": f"{each['title']} {each['id']}"} for each in records]
    write(embedded, sorted(records, key=lambda each: each["id"]))
    found = export(BeadsFile(embedded).read())
    assert found.left_out == ("tt-z.1",)
    bd.run("import", *(() if bd.is_old else ("-",)), stdin=found.raw.decode())
    expected = {each["id"]: told(each) for each in map(json.loads, found.raw.splitlines())}
    if not bd.is_old:
        for each in expected.values():  # which is what --to-bd is for
            each["edges"] = [(target, kind, "{}") for target, kind, _ in each["edges"]]
    assert {key: told(each) for key, each in bd.export().items()} == expected
