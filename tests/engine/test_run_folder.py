from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from hew_loop.engine import run_folder
from hew_loop.engine.run_folder import RUN_ID, RunFolder, create, find, loop_dir, point_latest, runs
from hew_loop.errors import HewError, UsageError

OLD = "loop-20260301T220000Z-0123abcd"
NEW = "loop-20260302T220000Z-4567abcd"


def started(root: Path, run_id: str) -> RunFolder:
    folder = create(root, run_id)
    folder.journal.touch()
    return folder


def test_a_new_run_id_sorts_behind_all_others_also_in_the_same_second(tmp_path: Path) -> None:
    now = datetime(2026, 3, 1, 22, 4, 5, tzinfo=UTC)
    made: list[str] = []
    for _ in range(3):
        made.append(run_folder.new_run_id(now, root=tmp_path))
        create(tmp_path, made[-1])

    assert [run_id[:21] for run_id in made] == [f"loop-20260301T22040{n}Z" for n in (5, 6, 7)]


def test_a_new_run_id_has_the_documented_form_and_is_new_each_time(tmp_path: Path) -> None:
    now = datetime(2026, 3, 1, 22, 4, 5, tzinfo=UTC)
    ids = {run_folder.new_run_id(now, root=tmp_path) for _ in range(20)}

    assert len(ids) == 20
    assert all(RUN_ID.fullmatch(run_id) and run_id.startswith("loop-20260301T220405Z-") for run_id in ids)


def test_a_run_folder_ignores_itself_and_names_its_files(tmp_path: Path) -> None:
    folder = create(tmp_path, OLD)

    assert (tmp_path / ".hew/loop/.gitignore").read_text() == "*\n"
    assert folder.path == loop_dir(tmp_path) / OLD
    assert [str(p.relative_to(folder.path)) for p in (
        folder.journal, folder.stop_file, folder.iteration(7), folder.iteration_json(7), folder.batch_json(1000),
        folder.gate_log(12),
    )] == ["events.jsonl", ".stop", "iter-007", "iter-007.json", "batch-1000.json", "gates/gate-012.log"]  # fmt: skip


@pytest.mark.parametrize("bad", ["", "latest", "../x", OLD.upper(), OLD + "/..", OLD[:-1]])
def test_a_run_id_cannot_be_a_path(tmp_path: Path, bad: str) -> None:
    with pytest.raises(UsageError, match="is no run id"):
        create(tmp_path, bad)
    assert list(tmp_path.iterdir()) == []


def test_a_run_id_is_used_once(tmp_path: Path) -> None:
    create(tmp_path, OLD)

    with pytest.raises(UsageError, match=f"the run {OLD} exists already"):
        create(tmp_path, OLD)


def test_a_place_that_cannot_be_written_is_an_error_sentence(tmp_path: Path) -> None:
    (tmp_path / ".hew").write_text("in the way")

    with pytest.raises(HewError, match=r"cannot write .*: Not a directory") as caught:
        create(tmp_path, OLD)
    assert caught.value.hint


def test_a_gitignore_of_the_user_is_left_alone(tmp_path: Path) -> None:
    loop_dir(tmp_path).mkdir(parents=True)
    (loop_dir(tmp_path) / ".gitignore").write_text("mine\n")

    create(tmp_path, OLD)

    assert (loop_dir(tmp_path) / ".gitignore").read_text() == "mine\n"


def test_latest_points_to_the_newest_run_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for run_id in (OLD, NEW):
        point_latest(create(tmp_path, run_id))

    latest = loop_dir(tmp_path) / "latest"
    assert latest.readlink() == Path(NEW)
    assert {p.name for p in loop_dir(tmp_path).iterdir()} == {OLD, NEW, "latest", ".gitignore"}


def test_runs_are_those_with_a_journal_oldest_first(tmp_path: Path) -> None:
    new, old = started(tmp_path, NEW), started(tmp_path, OLD)
    point_latest(new)
    create(tmp_path, "loop-20260303T220000Z-00000000")
    (loop_dir(tmp_path) / "notes").mkdir()

    assert runs(tmp_path) == (old, new)


def test_without_any_run_the_way_to_start_one_is_named(tmp_path: Path) -> None:
    assert runs(tmp_path) == ()
    with pytest.raises(HewError, match="there is no run here yet") as caught:
        find(tmp_path, None)
    assert "loop run" in caught.value.hint


def test_a_run_is_found_by_its_id_an_end_or_a_beginning_of_it(tmp_path: Path) -> None:
    old, new = started(tmp_path, OLD), started(tmp_path, NEW)

    asked = (None, "latest", OLD, "0123abcd", "loop-20260301", "4567abcd")

    assert [find(tmp_path, run) for run in asked] == [new, new, old, old, old, new]


@pytest.mark.parametrize(
    ("run", "what"), [("abcd", "more than one run"), ("loop-2", "more than one run"), ("x", "no run")]
)
def test_an_unclear_name_is_a_usage_error(tmp_path: Path, run: str, what: str) -> None:
    started(tmp_path, OLD)
    started(tmp_path, NEW)

    with pytest.raises(UsageError, match=f"{what} is called '{run}'"):
        find(tmp_path, run)
