"""Agents that hang, flood, die or leave processes behind: the iteration ends, its work stays, nothing lives on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.aftermath import KEEP, Aftermath, backlog, fates
from tests.support.project import Project

pytestmark = pytest.mark.slow

DAEMON = "setsid nohup sh -c 'while :; do date >> \"$HEW_WORKTREE/tick.txt\"; sleep 0.05; done' & "
SCRIPTS = {
    # Works, commits, leaves more, starts a daemon that holds its stdout and outlives it, and never ends.
    "hang.1": f"echo x > hang.txt; git add -A; git commit -qm work; echo more > more.txt {KEEP} {DAEMON}"
    "trap '' TERM; while :; do echo tick; sleep 0.1; done",
    "hang.2": 'grep -q "ended at its deadline" "$HEW_PROMPT_FILE" && echo told > hang.txt',
    "stall.1": "echo x > stall.txt; sleep 600",
    "stall.2": 'grep -q "printed nothing for too long" "$HEW_PROMPT_FILE" && echo told > stall.txt',
    "flood": "echo x > flood.txt; head -c 30000000 /dev/zero | tr '\\0' x",
    "daemon": f"echo x > daemon.txt; {DAEMON} while [ ! -s tick.txt ]; do sleep 0.01; done",
    "bare-env": 'env -i PATH="$PATH" sh -c \'echo x > bare.txt; sleep 600 & echo $!\' > "$PLACES/bare"',
    "stopped.1": "echo x > stopped.txt; kill -STOP $$",
    "stopped.2": "echo again > stopped.txt",
    "killed.1": "echo x > killed.txt; kill -9 $$",
    "killed.2": "echo again > killed.txt",
}


def _is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_an_agent_leaves_behind_is_ended_and_its_work_is_kept(tmp_path: Path) -> None:
    limits = 'iter_timeout = "4s"\nstall_timeout = "2.5s"\nmax_output = "1MB"\n'
    project = Project(tmp_path, config=f"jobs = 5\nguard_trip = 50\n{limits}")
    names = sorted({name.partition(".")[0] for name in SCRIPTS})
    backlog(project, *names)
    for name, script in SCRIPTS.items():
        (project.plan / f"p-{name}").write_text(script)
    before = Aftermath.of(project)
    done = project.run()
    before.check()
    assert (done.code, set(project.statuses().values())) == (0, {"closed"})
    assert fates(project) == {
        "bare-env.1": "landed",
        "daemon.1": "landed",
        "flood.1": "landed",
        "hang.1": "timed_out",
        "hang.2": "landed",
        "killed.1": "killed",
        "killed.2": "landed",
        "stall.1": "stalled",
        "stall.2": "landed",
        "stopped.1": "stalled",
        "stopped.2": "landed",
    }
    ended = {f"{i['task_id']}.{i['attempt']}": i for i in project.iterations()}
    hung = ended["p-hang.1"]
    assert {"hang.txt", "more.txt", "tick.txt"} <= set(project.git("ls-tree", "--name-only", hung["branch"]).split())
    assert hung["message"] == "it was ended at its deadline of 4 s; the last that it printed: tick"
    assert hung["leftover_processes"] >= 1
    assert project.git("show", f"{ended['p-stall.1']['branch']}:stall.txt") == "x"
    assert (project.folder() / f"iter-{ended['p-flood.1']['number']:03d}" / "output.log").stat().st_size == 1_000_000
    notices = [n["text"] for n in project.summary()["notices"]]
    assert any("output.log was cut: 29,000,000 of 30,000,000 bytes" in text for text in notices)
    assert any("outlived the agent and w" in text for text in notices)
    assert not _is_alive(int((project.places / "bare").read_text()))
    assert "tick.txt" in project.landed_files()  # what the daemon wrote before it was ended counts as the agent's


def test_an_agent_program_that_is_missing_is_said_before_anything_is_claimed(project: Project) -> None:
    backlog(project, "one")
    (project.path / ".hew.toml").write_text('[loop]\nruntime = "x"\n[runtime.x]\ncommand = ["no-such-agent"]\n')
    done = project.run()
    assert (done.code, project.statuses()) == (69, {"p-one": "open"})
    assert "no-such-agent" in done.err
    assert not (project.path / ".hew").exists()


def test_an_agent_that_says_try_later_uses_up_no_attempt_and_does_not_spin(tmp_path: Path) -> None:
    project = Project(tmp_path, config="jobs = 2\nattempts = 1\n")
    backlog(project, "one", "two")
    for name in ("one", "two"):
        project.script(f"p-{name}", f"echo part > {name}.txt; exit 75")
    before = Aftermath.of(project)
    began = time.monotonic()
    done = project.run("--budget-wall", "60s")
    assert time.monotonic() - began < 30  # the next try would be after the budget, so it is not waited for
    before.check()
    assert (done.code, project.summary()["stop_reason"]) == (4, "all_limited")
    assert project.statuses() == {"p-one": "open", "p-two": "open"}
    assert fates(project) == {"one.1": "rate_limit", "two.1": "rate_limit"}
    # Once more, and no limit now: the work of the first try is carried on.
    project.script("p-one", "test -f one.txt && echo rest >> one.txt")
    project.script("p-two", "test -f two.txt && echo rest >> two.txt")
    assert (project.run().code, project.git("show", "HEAD:one.txt")) == (0, "part\nrest")
