"""A person's checklist as a tracker: what a mark means, what outlives an edit, and that the rest stays theirs."""

from __future__ import annotations

import json
import os
import random
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.core import graph
from hew_loop.core.task import NEEDS_HUMAN, PARENT_CHILD, Edge, Task, TaskText
from hew_loop.errors import TrackerError
from hew_loop.trackers import checklist, whole_file
from hew_loop.trackers.base import BugReport, Tracker
from hew_loop.trackers.checklist import ChecklistTracker
from hew_loop.trackers.checklist_format import parse
from hew_loop.trackers.checklist_notes import Notebook, state_file
from hew_loop.trackers.checklist_view import View

ME = "loop/run-1/0"
PLAN = b"""\
\xef\xbb\xbf# The tea house\r
\r
Some *prose* with [ ] and - [ ] in it.\t \r
\r
## Kitchen\r
\r
1. [ ] Brew the tea  <- next\r
   Use fresh water.\r
2. [x] Boil the water \xe2\x80\x94 done on Monday\r
3. [!] Buy a kettle\r
\r
```sh\r
- [ ] not this one\r
```\r
<!--\r
- [ ] nor this\r
-->\r
## Table\n
* [ ] Lay the table <!-- hew:model=small -->
\t* [ ] cups
\t* [X] plates
+ [ ] Light \xff a candle"""


def plan(directory: Path, text: str | bytes = PLAN) -> ChecklistTracker:
    raw = text if isinstance(text, bytes) else text.encode()
    (directory / "PLAN.md").write_bytes(raw)
    return reopened(directory)


def reopened(directory: Path) -> ChecklistTracker:
    """Another process on the same files."""
    return ChecklistTracker(directory / "PLAN.md", state=directory / ".hew" / "checklist" / "PLAN.json")


def ids(tracker: Tracker) -> dict[str, str]:
    return {task.title: task.id for task in tracker.read()}


def bug(task_id: str, attempt: int = 1) -> BugReport:
    return BugReport(
        title="[gate-failed] red",
        description="2 tests fail",
        blocks=task_id,
        external_ref=f"loop:run-1/{task_id}.{attempt}",
        labels=(NEEDS_HUMAN, "gate-failed"),
    )


def test_items_are_tasks_in_the_order_of_the_file(tmp_path: Path) -> None:
    tracker = plan(tmp_path)
    of = ids(tracker)
    first = datetime(1970, 1, 1, tzinfo=UTC)
    assert all(re.fullmatch(r"plan-[0-9a-f]{8}", task_id) for task_id in of.values())
    below = (Edge(of["Lay the table"], PARENT_CHILD),)
    expected = [
        {"title": "Brew the tea <- next"},
        {"title": "Boil the water — done on Monday", "status": "closed"},
        {"title": "Buy a kettle", "labels": (NEEDS_HUMAN,)},
        {"title": "Lay the table", "type": "epic"},
        {"title": "cups", "edges": below},
        {"title": "plates", "edges": below, "status": "closed"},
        {"title": "Light ÿ a candle"},
    ]
    tasks = tracker.read()
    assert tasks == tuple(
        Task(id=of[str(members["title"])], created_at=first + timedelta(seconds=n), **members)  # type: ignore[arg-type]
        for n, members in enumerate(expected)
    )
    ready = graph.ready({t.id: t for t in tasks}, datetime.now(UTC))
    assert [t.title for t in ready] == [
        "Brew the tea <- next",
        "Buy a kettle",
        "Lay the table",
        "cups",
        "Light ÿ a candle",
    ]
    assert (tracker.kind, tracker.store) == ("checklist", str(tmp_path / "PLAN.md"))


def test_a_task_tells_its_notes_and_where_it_stands(tmp_path: Path) -> None:
    tracker = plan(tmp_path)
    of = {task.title: task for task in tracker.read()}
    tracker.note(of["cups"].id, "six of them")
    brew, lay, cups = of["Brew the tea <- next"], of["Lay the table"], of["cups"]
    assert tracker.show(brew.id) == TaskText(brew, "Use fresh water.\n\nIn PLAN.md under: The tea house / Kitchen")
    assert tracker.show(lay.id) == TaskText(lay, "<!-- hew:model=small -->\n\nIn PLAN.md under: The tea house / Table")
    assert tracker.show(cups.id) == TaskText(
        cups, "In PLAN.md under: The tea house / Table / Lay the table", notes="six of them"
    )


def test_an_item_mentions_the_paths_of_its_words_and_of_what_stands_below_it(tmp_path: Path) -> None:
    tracker = plan(tmp_path, "- [ ] Mend src/a.py\n  See `docs/b.md`.\n- [ ] Lay the table\n")
    assert [t.mentions for t in tracker.read()] == [("docs/b.md", "src/a.py"), ()]


def test_a_title_without_end_is_cut_and_kept_in_the_description(tmp_path: Path) -> None:
    tracker = plan(tmp_path, f"- [ ] {'x' * 600}\n")
    (task,) = tracker.read()
    assert task.title == "x" * 499 + "…"
    assert tracker.show(task.id) == TaskText(task, "x" * 600)


def test_only_marks_change_in_two_runs_and_every_id_stays(tmp_path: Path) -> None:
    tracker = plan(tmp_path)
    of = ids(tracker)
    brew, cups, candle = of["Brew the tea <- next"], of["cups"], of["Light ÿ a candle"]
    assert tracker.claim(brew, ME) == ""
    tracker.note(brew, "hot")
    tracker.remember("the kettle is slow")
    assert (tmp_path / "PLAN.md").read_bytes() == PLAN
    tracker.close(brew, "landed abc")
    assert (tmp_path / "PLAN.md").read_bytes() == PLAN.replace(b"[ ] Brew", b"[x] Brew")
    second = reopened(tmp_path)
    assert ids(second) == of
    assert second.claim(cups, "loop/run-2/0") == ""
    second.file_bug(bug(cups))
    second.release(cups, "loop/run-2/0", "parked")
    second.close(candle, "landed def")
    second.reopen(brew, "did not land")
    after = PLAN.replace(b"[ ] cups", b"[!] cups").replace(b"[ ] Light", b"[x] Light")
    assert (tmp_path / "PLAN.md").read_bytes() == after
    assert ids(second) == of


def test_a_second_run_works_on_what_the_first_left_and_on_nothing_twice(tmp_path: Path) -> None:
    worked: list[str] = []
    tracker = plan(tmp_path, "- [ ] a\n- [ ] b\n- [ ] c\n")
    for _ in range(4):
        tracker = reopened(tmp_path)
        todo = graph.ready({t.id: t for t in tracker.read()}, datetime.now(UTC))
        for task in todo[:1]:
            worked.append(task.title)
            tracker.close(task.id, "done")
    assert worked == ["a", "b", "c"]
    assert (tmp_path / "PLAN.md").read_bytes() == b"- [x] a\n- [x] b\n- [x] c\n"


def test_the_box_of_the_item_is_ticked_and_never_that_of_one_like_it(tmp_path: Path) -> None:
    long = "x" * 700
    tracker = plan(tmp_path, f"- [ ] {long}1\n- [ ] {long}2\n- [ ] {long}\n- [ ] {long}\n")
    tasks = tracker.read()
    for task, marks in ((tasks[1], " x  "), (tasks[3], " x x"), (tasks[2], " xxx")):
        tracker.close(task.id, "done")
        assert re.findall(rb"\[(.)\]", (tmp_path / "PLAN.md").read_bytes()) == [m.encode() for m in marks]
    assert [t.id for t in tracker.read()] == [t.id for t in tasks]


def test_ids_outlive_reordering_adding_notes_and_arrows(tmp_path: Path) -> None:
    before = "# A\n- [ ] one\n- [x] two\n  - [ ] deep\n# B\n- [ ] three\n- [ ] one\n"
    one_a, two, deep, three, one_b = (t.id for t in plan(tmp_path, before).read())
    after = (
        "Hi\n# B\n* [!] new\n* [!] one <- now\n* [ ] three\n# A\n1) [ ] two\n\n   text\n\n   * [x] deep\n2) [X]  one\n"
    )
    new, *rest = (t.id for t in plan(tmp_path, after).read())
    assert rest == [one_b, three, two, deep, one_a]
    assert new not in rest


def test_a_renamed_item_and_one_in_another_section_are_new_ones(tmp_path: Path) -> None:
    (first,) = ids(plan(tmp_path, "# A\n- [ ] one\n")).values()
    (renamed,) = ids(plan(tmp_path, "# A\n- [ ] one!\n")).values()
    (moved,) = ids(plan(tmp_path, "# B\n- [ ] one\n")).values()
    assert len({first, renamed, moved}) == 3


@given(st.lists(st.sampled_from(["a", "b", "- c", "# S", "  - [ ] d"]), max_size=12), st.randoms())
def test_ids_hang_on_neither_marks_nor_order(texts: list[str], rng: random.Random) -> None:
    lines = [text if text.startswith(("#", "  ")) else f"- [ ] {text}" for text in texts]

    def id_list(text: str) -> list[str]:
        return list(View(parse(text.encode()), Notebook(), "n").index)

    before = id_list("\n".join(lines))
    assert len(set(before)) == len(before) == sum("[ ]" in line for line in lines)
    assert id_list("\n".join(line.replace("[ ]", f"[{rng.choice(' xX!')}]") for line in lines)) == before
    flat = [line for line in lines if line.startswith("-")]
    assert sorted(id_list("\n".join(rng.sample(flat, len(flat))))) == sorted(id_list("\n".join(flat)))


def test_two_ids_that_begin_alike_are_told_apart_by_more_than_their_order() -> None:
    texts = ["item 13186", "item 14716"]  # found by trying

    def id_list(*texts: str) -> list[str]:
        return list(View(parse("".join(f"- [ ] {t}\n" for t in texts).encode()), Notebook(), "n").index)

    assert id_list(*texts) == ["plan-e26a4bd6", "plan-e26a4bd6e1969b7d5a5a"]
    assert id_list(*reversed(texts)) == ["plan-e26a4bd6e1969b7d5a5a", "plan-e26a4bd6"]


def test_a_person_may_reset_what_was_set_aside(tmp_path: Path) -> None:
    tracker = plan(tmp_path, "- [ ] a\n- [ ] b\n")
    a = ids(tracker)["a"]
    filed = tracker.file_bug(bug(a))
    assert (tmp_path / "PLAN.md").read_bytes() == b"- [!] a\n- [ ] b\n"
    assert tracker.claim(a, ME) == "it is set aside with [!]: a person has to look at it"
    shown = tracker.show(filed)
    assert shown is not None
    assert (shown.task.title, shown.task.status, shown.description) == ("[gate-failed] red", "open", "2 tests fail")
    tracker = plan(tmp_path, "- [ ] a\n- [ ] b\n")
    shown = tracker.show(filed)
    assert shown is not None
    assert shown.task.is_closed
    # The same park told twice, after a crash, does not undo what the person did.
    assert tracker.file_bug(bug(a)) == filed
    assert tracker.claim(a, ME) == ""
    second = tracker.file_bug(bug(a, attempt=2))
    assert second != filed
    tracker.close(filed, "an old one")
    assert (tmp_path / "PLAN.md").read_bytes() == b"- [!] a\n- [ ] b\n"
    tracker.close(second, "mended")
    assert (tmp_path / "PLAN.md").read_bytes() == b"- [ ] a\n- [ ] b\n"


def test_an_item_with_others_below_is_an_epic_and_sets_all_of_them_aside(tmp_path: Path) -> None:
    tracker = plan(tmp_path, "- [!] all\n  - plain\n    - [ ] a\n  - [x] b\n- [ ] c\n")
    rows = [(t.title, t.type, t.status, t.labels) for t in tracker.read()]
    assert rows == [
        ("all", "epic", "open", (NEEDS_HUMAN,)),
        ("a", "task", "open", (NEEDS_HUMAN,)),
        ("b", "task", "closed", ()),
        ("c", "task", "open", ()),
    ]


def test_what_a_person_did_meanwhile_stays(tmp_path: Path) -> None:
    tracker = plan(tmp_path, "- [ ] a\n- [ ] b\n")
    of = ids(tracker)
    tracker.claim(of["b"], ME)
    (tmp_path / "PLAN.md").write_bytes(b"New intro\n\n- [ ] c\n- [!] b\n- [ ] a (soon)\n")
    found = tracker.show(of["b"])
    assert found is not None
    assert (found.task.status, found.task.assignee, found.task.labels) == ("in_progress", ME, (NEEDS_HUMAN,))
    tracker.close(of["b"], "landed")
    after = b"New intro\n\n- [ ] c\n- [x] b\n- [ ] a (soon)\n"
    assert (tmp_path / "PLAN.md").read_bytes() == after
    with pytest.raises(TrackerError) as caught:
        tracker.close(of["a"], "landed")
    assert caught.value.message == f"{tmp_path}/PLAN.md has no item {of['a']}."
    assert tracker.file_bug(bug(of["a"])) == f"{of['a']}-bug1"
    assert (tmp_path / "PLAN.md").read_bytes() == after


def test_a_save_in_the_middle_of_a_write_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = plan(tmp_path, "- [ ] a\n")
    (a,) = ids(tracker).values()
    saves = iter([b"- [ ] b\n- [ ] a\n", b"- [ ] b\n\n- [ ] a\n"])
    fsync = os.fsync

    def saved_meanwhile(descriptor: int) -> None:
        fsync(descriptor)
        if (raw := next(saves, None)) is not None:
            (tmp_path / "PLAN.md").write_bytes(raw)

    monkeypatch.setattr(whole_file.os, "fsync", saved_meanwhile)
    tracker.close(a, "done")
    assert (tmp_path / "PLAN.md").read_bytes() == b"- [ ] b\n\n- [x] a\n"


def test_a_crash_between_the_mark_and_the_notes_is_made_good_by_saying_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = plan(tmp_path, "- [ ] a\n")
    (a,) = ids(tracker).values()
    tracker.claim(a, ME)

    def killed(path: Path, notebook: Notebook) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checklist, "write_notebook", killed)
        with pytest.raises(KeyboardInterrupt):
            tracker.file_bug(bug(a))
    assert (tmp_path / "PLAN.md").read_bytes() == b"- [!] a\n"
    tracker = reopened(tmp_path)
    assert tracker.file_bug(bug(a)) == f"{a}-bug1"
    tracker.release(a, ME, "parked")
    assert [(t.status, t.assignee, t.labels) for t in tracker.read()] == [("open", "", (NEEDS_HUMAN,))]


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    tracker = plan(tmp_path, "".join(f"- [ ] {n}\n" for n in range(24)))
    of = list(ids(tracker).values())
    refusals: list[str] = []

    def work(mine: int) -> None:
        own = reopened(tmp_path)
        for n, task_id in enumerate(of):
            why = own.claim(task_id, f"loop/run/{mine}")
            if why:
                refusals.append(why)
            elif n % 2:
                own.close(task_id, "done")

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "PLAN.md").read_text() == "".join(f"- [{' x'[n % 2]}] {n}\n" for n in range(24))
    assert len(refusals) == 2 * 24
    assert [t.status for t in tracker.read()] == ["in_progress", "closed"] * 12


def test_the_mode_and_a_link_of_the_file_are_kept_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    plan(tmp_path, "- [ ] a\n")
    (tmp_path / "PLAN.md").chmod(0o640)
    (tmp_path / "link.md").symlink_to("PLAN.md")
    tracker = ChecklistTracker(tmp_path / "link.md", state=tmp_path / "state" / "link.json")
    (a,) = ids(tracker).values()
    tracker.close(a, "done")
    assert (tmp_path / "link.md").is_symlink()
    assert (tmp_path / "PLAN.md").read_bytes() == b"- [x] a\n"
    assert (tmp_path / "PLAN.md").stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["PLAN.md", "link.md", "state"]
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == [".gitignore", "link.json", "link.json.lock"]
    assert (tmp_path / "state" / ".gitignore").read_text() == "*\n"


def test_reading_writes_nothing(tmp_path: Path) -> None:
    tracker = plan(tmp_path)
    tracker.read()
    tracker.show("plan-00000000")
    assert tracker.unclear() == ()
    assert [p.name for p in tmp_path.iterdir()] == ["PLAN.md"]


def test_lines_that_only_look_like_items_can_be_asked_for(tmp_path: Path) -> None:
    assert plan(tmp_path, "- [ ] a\n- [-] b\n-[ ] c\n").unclear() == ((2, "- [-] b"), (3, "-[ ] c"))


def test_a_checklist_that_cannot_be_read_is_one_clear_sentence(tmp_path: Path) -> None:
    file, folder = tmp_path / "PLAN.md", tmp_path / "folder.md"
    folder.mkdir()
    state = tmp_path / "s" / "s.json"
    with pytest.raises(TrackerError, match=rf"^There is no checklist {file}\.$"):
        ChecklistTracker(file, state=state).read()
    with pytest.raises(TrackerError, match=rf"^{folder} is not a file\.$"):
        ChecklistTracker(folder, state=state).close("plan-00000000", "")
    plan(tmp_path)
    with pytest.raises(TrackerError, match=rf"^Cannot read {file}/x\.md: Not a directory\.$"):
        ChecklistTracker(file / "x.md", state=state).read()
    tracker = plan(tmp_path, "- [ ] a\n".encode("utf-16"))
    with pytest.raises(TrackerError, match=rf"^{file} is written in UTF-16\.$"):
        tracker.read()


def test_what_cannot_be_written_is_one_clear_sentence_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = plan(tmp_path, "- [ ] a\n")
    (a,) = ids(tracker).values()
    tracker.note(a, "before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_file.os, "fsync", full)
    with pytest.raises(TrackerError, match=rf"^Cannot write {tmp_path}/PLAN\.md: No space left on device\.$"):
        tracker.close(a, "done")
    assert (tmp_path / "PLAN.md").read_bytes() == b"- [ ] a\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hew", "PLAN.md"]
    monkeypatch.undo()
    blocked = ChecklistTracker(tmp_path / "PLAN.md", state=tmp_path / "PLAN.md" / "state.json")
    with pytest.raises(TrackerError, match=r"^Cannot (read|write) .*: "):
        blocked.claim(a, ME)


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        ("{", "is damaged: Expecting property name"),
        ("[]", "is damaged: "),
        ('{"schema_version": 2, "new": 1}', "has version 2, this program writes version 1."),
        ('{"schema_version": 1, "items": {"a": {"who": 1}}}', r"is damaged: items\.a\.who: "),
        ("\udcff", "is damaged: "),
    ],
)
def test_damaged_notes_are_refused_and_left_alone(tmp_path: Path, state: str, complaint: str) -> None:
    tracker = plan(tmp_path, "- [ ] a\n")
    (a,) = ids(tracker).values()
    tracker.state.parent.mkdir(parents=True)
    tracker.state.write_bytes(state.encode("utf-8", "surrogateescape"))
    for act in (tracker.read, lambda: tracker.close(a, "done")):
        with pytest.raises(TrackerError, match=complaint):
            act()
    assert tracker.state.read_bytes() == state.encode("utf-8", "surrogateescape")
    assert (tmp_path / "PLAN.md").read_bytes() == b"- [ ] a\n"


def test_hostile_texts_are_kept_beside_the_file_and_never_in_it(tmp_path: Path) -> None:
    tracker = plan(tmp_path, "- [ ] a\n")
    (a,) = ids(tracker).values()
    tracker.note(a, "\ud800 - [ ] b\n- [ ] c")
    tracker.remember("\udfff")
    tracker.file_bug(BugReport(title="\ud800", description="- [ ] x", blocks="../a", external_ref="r"))
    found = reopened(tmp_path).show(a)
    assert found is not None
    assert found.notes == "? - [ ] b\n- [ ] c"
    assert (tmp_path / "PLAN.md").read_bytes() == b"- [ ] a\n"
    assert json.loads(tracker.state.read_text())["memories"] == ["?"]


def test_each_checklist_of_a_repository_has_notes_of_its_own(tmp_path: Path) -> None:
    files = [tmp_path / "PLAN.md", tmp_path / "docs" / "PLAN.md", tmp_path / "PLAN.txt", tmp_path.parent / "PLAN.md"]
    states = [state_file(tmp_path, file) for file in files]
    assert len(set(states)) == len(files)
    assert all(state.parent == tmp_path / ".hew" / "checklist" for state in states)
    # Wherever the repository lies.
    assert state_file(Path("/a"), Path("/a/PLAN.md")).name == state_file(Path("/b"), Path("/b/PLAN.md")).name
    assert re.fullmatch(r"PLAN-[0-9a-f]{8}\.json", states[0].name)
