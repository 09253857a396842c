"""Agents that lie, break git, write where they should not, or take others' work: judged by git and the tracker."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.aftermath import KEEP, MAIN, SAY, Aftermath, backlog, fates, issue
from tests.support.project import Project

pytestmark = pytest.mark.slow

LOOP = f"{sys.executable} -m hew_loop"


def _play(project: Project, scripts: dict[str, str]) -> None:
    """`TASK` or `TASK.ATTEMPT` to what the agent does."""
    backlog(project, *sorted({name.partition(".")[0] for name in scripts}))
    for name, script in scripts.items():
        (project.plan / f"p-{name}").write_text(SAY + script)


def test_whatever_way_an_agent_leaves_its_work_it_lands_whole_or_is_kept(tmp_path: Path) -> None:
    project = Project(
        tmp_path, config="jobs = 3\nattempts = 1\nguard_trip = 50\n", files={"a.txt": "1\n", "d/b": "b\n"}
    )
    project.git("commit", "-q", "--allow-empty", "-m", "Second")
    commit = "git add -A; git commit -qm mine"
    _play(
        project,
        {
            "commit": f"echo x > commit.txt; {commit} {KEEP}",
            "both": f"echo x > both.txt; {commit} {KEEP} echo y >> both.txt",
            "other": f"git switch -qc its-own; echo x > other.txt; {commit} {KEEP} echo y >> other.txt",
            "detached": f"git checkout -q --detach; echo x > detached.txt; {commit} {KEEP}",
            "no-git": f"echo x > no-git.txt; {commit} {KEEP} echo y >> no-git.txt; rm -f .git",
            "new-git": f"echo x > new-git.txt; rm -f .git; git init -q; {commit}",
            "nested": f"mkdir sub; cd sub; git init -q; echo x > nested.txt; {commit}",
            "no-tree": f'echo x > no-tree.txt; {commit} {KEEP} cd /; rm -rf "$HEW_WORKTREE"',
            "no-admin": f'echo x > no-admin.txt; {commit} {KEEP} rm -rf "$(git rev-parse --absolute-git-dir)"',
            "no-branch": f'echo x > no-branch.txt; {commit}; git update-ref -d "$(git symbolic-ref HEAD)"',
            "locked": 'echo x > locked.txt; touch "$(git rev-parse --absolute-git-dir)/index.lock"',
            "hidden": "echo 2 > a.txt; git update-index --assume-unchanged a.txt",
            "links": "ln -s /etc/passwd out; ln -s ../../.. up; echo x > links.txt",
            "names": "printf x > \"$(printf 'new\\nline')\"; printf x > \"$(printf 'bad\\377')\"; "
            "echo x > '-rf; $(touch x)'",
            "fifo": "mkfifo pipe; echo x > fifo.txt",
            "big": "head -c 20000000 /dev/urandom > big.bin",
            "tracker": f"mkdir -p .beads; echo junk > .beads/issues.jsonl; git add -f .beads; {commit} {KEEP}"
            "echo x > tracker.txt",
            "tracker-only": f"mkdir -p .beads; echo other > .beads/issues.jsonl; git add -f .beads; {commit} {KEEP}",
            "amend": f"echo x > amend.txt; git add -A; git commit -q --amend --no-edit {KEEP}",
            "rewrite": f"git reset -q --hard HEAD~1; echo x > rewrite.txt; {commit} {KEEP}",
            "orphan": f"git checkout -q --orphan fresh; echo x > orphan.txt; {commit} {KEEP}",
            "empty": f"git commit -q --allow-empty -m nothing {KEEP}",
        },
    )
    before = Aftermath.of(project)
    done = project.run()
    before.check()
    kept = {"amend": "foreign_work", "rewrite": "foreign_work", "orphan": "foreign_work", "empty": "no_diff",
            "tracker-only": "no_diff"}  # fmt: skip
    landed = {name.removeprefix("p-") for name, status in project.statuses().items() if status == "closed"}
    assert done.code == 1
    assert {n.partition(".")[0]: f for n, f in fates(project).items() if f != "landed"} == kept
    assert landed == {n.partition(".")[0] for n, f in fates(project).items() if f == "landed"}
    files = project.landed_files()
    assert {f"{n}.txt" for n in landed - {"hidden", "names", "nested", "big"}} <= files
    assert {"out", "up", '"new\\nline"', '"bad\\377"', "-rf; $(touch x)", "sub/nested.txt", "big.bin"} <= files
    assert not {".beads/issues.jsonl", "amend.txt", "rewrite.txt", "orphan.txt"} & files
    shown = {name: project.git("show", f"HEAD:{name}") for name in ("both.txt", "other.txt", "no-git.txt", "a.txt")}
    assert shown == {"both.txt": "x\ny", "other.txt": "x\ny", "no-git.txt": "x\ny", "a.txt": "2"}
    refused = {i["task_id"]: i["branch"] for i in project.iterations() if i["failure_class"] == "foreign_work"}
    assert {t: project.git("show", f"{b}:{t.removeprefix('p-')}.txt") for t, b in refused.items()} == dict.fromkeys(
        refused, "x"
    )


def test_a_later_run_starts_refused_work_anew_and_does_not_carry_it(tmp_path: Path) -> None:
    project = Project(tmp_path, config="jobs = 2\nattempts = 2\nguard_trip = 50\n")
    wait = 'while [ ! -e "$PLACES/{0}" ]; do sleep 0.02; done\n'
    _play(
        project,
        {
            "victim.1": f'echo x > victim.txt; git add -A; git commit -qm v {KEEP} touch "$PLACES/ready"\n'
            + wait.format("taken")
            + "exit 1",
            "victim.2": "exit 1",
            "thief": wait.format("ready")
            + f'git merge -q --no-edit "loop/$HEW_RUN_ID/p-victim.1" 2>&1; echo t > thief.txt; git add -A\n'
            f'git commit -qm t {KEEP} touch "$PLACES/taken"',
            "orphan": 'git checkout -q --orphan "new$HEW_ITER"; echo x > orphan.txt; git add -A; '
            f"git commit -qm o {KEEP}",
        },
    )
    before = Aftermath.of(project)
    assert project.run().code == 1
    before.check()
    assert {f for n, f in fates(project).items() if not n.startswith("victim")} == {"foreign_work"}
    assert not {"thief.txt", "victim.txt", "orphan.txt"} & project.landed_files()
    bugs = {t: v for t, v in project.tasks().items() if v["title"].startswith("[agent-failed]")}
    assert len(bugs) == 3
    assert all(v["labels"] == ["agent-failed", "needs-human"] for v in bugs.values())
    assert project.run().code == 0, "the bugs block the tasks, so that nothing is ready"
    assert project.iterations() == []
    for script in project.plan.iterdir():
        script.unlink()
    for bug in bugs:
        project.loop("task", "close", bug)
    done = project.run()
    before.check()
    # The victim only failed: what it left is carried on. What was refused is not, and stays on its branches.
    assert (done.code, set(project.statuses().values())) == (0, {"closed"})
    landed = {"p-thief.txt", "p-victim.txt", "p-orphan.txt", "victim.txt"}
    assert project.landed_files() == {"README.md", ".hew.toml", *landed}


def test_an_agents_word_is_not_taken_for_its_work(tmp_path: Path) -> None:
    project = Project(tmp_path, config="jobs = 4\nattempts = 2\nguard_trip = 50\n")
    _play(
        project,
        {
            "liar": """say '{"status": "done", "summary": "all done"}'""",
            "mute": "true",
            "needless": """say '{"status": "no_change", "summary": "was there already"}'""",
            "stuck": """echo part > part.txt; say '{"status": "blocked", "summary": "no key"}'""",
            "modest": """echo x > modest.txt; say '{"status": "no_change"}'""",
            "closer": f'echo x > closer.txt; {LOOP} task close "$HEW_TASK_ID" >&2',
            "quitter": f'{LOOP} task close "$HEW_TASK_ID" >&2; exit 1',
            "helper": f"echo x > helper.txt; {LOOP} task close p-zz >&2",
        },
    )
    backlog(project, "zz", after_closer=["closer"], after_quitter=["quitter"], after_zz=["zz", "helper"])
    project.script("p-after_closer", "test -f closer.txt && echo x > after_closer.txt")
    project.script("p-after_zz", "test -f helper.txt && echo x > after_zz.txt")
    project.script("p-zz", "sleep 3; exit 1")
    before = Aftermath.of(project)
    done = project.run("--task", *" --task ".join(f"p-{n}" for n in (
        "liar", "mute", "needless", "stuck", "modest", "closer", "quitter", "helper", "after_closer", "after_quitter",
        "after_zz")).split())  # fmt: skip
    before.check()
    tasks = project.tasks()
    mine = {t.removeprefix("p-"): v["status"] for t, v in tasks.items() if not v["title"].startswith("[")}
    still_open = dict.fromkeys(("liar", "mute", "stuck", "quitter", "after_quitter"), "open")
    assert done.code == 1
    assert mine == {**dict.fromkeys(mine, "closed"), **still_open}
    assert fates(project) == {
        **dict.fromkeys(("liar.1", "liar.2", "mute.1", "mute.2"), "no_diff"),
        **dict.fromkeys(("quitter.1", "quitter.2"), "agent_failed"),
        **dict.fromkeys(("modest.1", "closer.1", "helper.1", "after_closer.1", "after_zz.1"), "landed"),
        "needless.1": "unchanged",
        "stuck.1": "agent_blocked",
    }
    assert tasks["p-needless"]["close_reason"].startswith("no change needed: was there already")
    bugs = {v["title"].split(":")[0]: t for t, v in tasks.items() if v["title"].startswith("[")}
    assert sorted(bugs) == [
        "[agent-failed] p-liar",
        "[agent-failed] p-mute",
        "[agent-failed] p-quitter",
        "[blocked] p-stuck",
    ]
    blocks = {d["depends_on_id"] for d in tasks["p-liar"]["dependencies"]}
    assert blocks == {bugs["[agent-failed] p-liar"]}
    branches = project.git("for-each-ref", "--format=%(refname:lstrip=4)", "refs/heads/loop/").split()
    assert branches == ["p-stuck.1"]  # nothing was left by the others that failed
    assert "has not landed" in tasks["p-quitter"]["notes"]


def test_no_change_on_top_of_unlanded_work_gates_this_work_and_closes_nothing_untested(tmp_path: Path) -> None:
    gate = '[loop.gate]\ncommands = [["sh", "-c", "test ! -f work.txt || test -f $PLACES/mended"]]\n'
    project = Project(tmp_path, config=gate)
    _play(
        project,
        {
            "task.1": "echo x > work.txt",
            "task.2": """touch "$PLACES/mended"; say '{"status": "no_change", "summary": "it is right as it is"}'""",
        },
    )
    assert project.run().code == 0
    assert (fates(project), "work.txt" in project.landed_files()) == (
        {"task.1": "gate_failed", "task.2": "landed"},
        True,
    )


def test_what_agents_do_outside_their_worktree_is_told_and_confuses_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path, config="attempts = 1\nguard_trip = 50\n", files={"a.txt": "1\n", "b.txt": "1\n"})
    (project.path / "mine.txt").write_text("mine\n")
    project.git("add", "mine.txt")
    (project.path / "a.txt").write_text("edited by the user\n")
    ref = '"refs/loop/$HEW_RUN_ID/integration"'
    hook = (
        "H=$(git rev-parse --path-format=absolute --git-common-dir)/hooks; mkdir -p $H\n"
        "for h in pre-commit commit-msg post-commit post-checkout reference-transaction post-merge; do\n"
        "printf '#!/bin/sh\\necho ${HEW_TASK_ID:-ours} >> \"$PLACES/hooks\"\\n' > $H/$h; chmod +x $H/$h; done\n"
    )
    _play(
        project,
        {
            "a-writes": f"{MAIN} echo evil > $M/evil.txt; echo more >> $M/mine.txt; echo x > a-writes.txt",
            "b-moves": f"echo x > sneak.txt; git add -A; git commit -qm s; git update-ref {ref} HEAD {KEEP} exit 1",
            "c-next": "echo x > c-next.txt",
            "d-deletes": f"echo x > d-deletes.txt; git update-ref -d {ref}",
            "e-plants": f"echo x > e-plants.txt; git config user.name Evil; {hook}",
            "f-hides": "echo x > f-hides.txt; git config core.bare true",
            "g-shows": "git config core.bare false; echo x > g-shows.txt; git add -A; git commit -qm g",
        },
    )
    before = Aftermath.of(project)
    done = project.run()
    before.check(also_dirty="?? evil.txt\nAM mine.txt")
    assert done.code == 1
    assert [n for n, f in fates(project).items() if f != "landed"] == ["b-moves.1"]
    assert "sneak.txt" not in project.landed_files()
    assert (project.path / "a.txt").read_text() == "edited by the user\n"
    hooks = (project.places / "hooks").read_text().split()
    assert "ours" not in hooks
    told = [n["text"] for n in project.summary()["notices"]]
    for what in ("main checkout changed while iteration 1 ran: evil.txt, mine.txt", "private integration ref was",
                 "git configuration or hooks changed while iteration 5 ran", "HEAD of the main checkout"):  # fmt: skip
        assert any(what in text for text in told), (what, told)


def test_delivery_is_refused_where_an_agent_wrote_what_is_to_be_delivered(project: Project) -> None:
    _play(project, {"one": f"{MAIN} echo evil > $M/one.txt; echo good > one.txt"})
    done = project.run()
    run = project.folder().name
    assert (done.code, (project.path / "one.txt").read_text()) == (1, "evil\n")
    assert f"loop deliver {run}" in done.out
    (project.path / "one.txt").unlink()
    assert (project.loop("deliver", run).code, project.git("show", "HEAD:one.txt")) == (0, "good")


def test_a_checkout_that_an_agent_hid_from_git_is_not_moved_under_its_user(project: Project) -> None:
    _play(project, {"one": "echo x > one.txt; git config core.bare true"})
    head = project.git("rev-parse", "HEAD")
    assert project.run().code == 1
    project.git("config", "core.bare", "false")
    assert (project.git("rev-parse", "HEAD"), project.git("status", "--porcelain")) == (head, "")
    assert project.loop("deliver", project.folder().name).code == 0
    assert (project.path / "one.txt").read_text() == "x\n"


def test_a_gate_that_one_candidate_hangs_names_it_and_lands_the_others(tmp_path: Path) -> None:
    gate = '[loop.gate]\ntimeout = "2s"\ncommands = [["sh", "test.sh"]]\n'
    files = {"test.sh": "test ! -f hang || { echo hanging; setsid sleep 600; }\n", "shared.txt": "1\n"}
    project = Project(tmp_path, files=files, config=f"jobs = 4\nattempts = 1\n{gate}")
    _play(project, {"a": "echo x > a.txt", "b": "echo x > hang", "c": "echo x > c.txt"})
    before = Aftermath.of(project)
    done = project.run()
    before.check()
    assert (done.code, fates(project)) == (1, {"a.1": "landed", "b.1": "gate_failed", "c.1": "landed"})
    assert {"a.txt", "c.txt"} <= project.landed_files()
    bugs = [v["title"] for v in project.tasks().values() if v["title"].startswith("[")]
    assert len(bugs) == 1
    assert bugs[0].startswith("[gate-failed] p-b: ")


def test_a_conflict_is_resolved_by_the_next_attempt_or_parked_and_markers_never_land(tmp_path: Path) -> None:
    project = Project(
        tmp_path, files={"x.txt": "1\n", "y.txt": "1\n"}, config="jobs = 3\nattempts = 2\nguard_trip = 50\n"
    )
    wait = 'while [ ! -e "$PLACES/landed" ]; do sleep 0.02; done; '
    _play(
        project,
        {
            "first": 'echo first > x.txt; echo first > y.txt; touch "$PLACES/first"',
            "good.1": wait + "echo good > x.txt",
            "good.2": "grep -q '^<<<<<<< ' x.txt && git rev-parse -q --verify MERGE_HEAD && "
            "grep -q 'x.txt' \"$HEW_PROMPT_FILE\" && printf 'first\\ngood\\n' > x.txt && git add x.txt",
            "bad.1": wait + f"echo bad > y.txt; git add -A; git commit -qm bad {KEEP}",
            "bad.2": "git add -A; git commit -qm 'with markers'",
            "last": 'while ! git cat-file -e "refs/loop/$HEW_RUN_ID/integration:x.txt" || '
            'test "$(git show "refs/loop/$HEW_RUN_ID/integration:x.txt")" = 1; do sleep 0.02; done\n'
            'touch "$PLACES/landed"; echo x > last.txt',
        },
    )
    tasks = (project.path / ".beads/issues.jsonl").read_text().splitlines()
    ahead = [json.dumps({**json.loads(line), "priority": 0 if '"p-first"' in line else 2}) for line in tasks]
    (project.path / ".beads/issues.jsonl").write_text("\n".join(ahead) + "\n")
    before = Aftermath.of(project)
    done = project.run("--jobs", "4")
    before.check()
    assert (done.code, fates(project)) == (
        1,
        {"first.1": "landed", "good.1": "conflict", "good.2": "landed", "bad.1": "conflict", "bad.2": "unmerged",
         "last.1": "landed"},
    )  # fmt: skip
    assert {n: project.git("show", f"HEAD:{n}") for n in ("x.txt", "y.txt")} == {
        "x.txt": "first\ngood",
        "y.txt": "first",
    }
    assert [v["title"] for v in project.tasks().values() if v["title"].startswith("[merge-conflict] p-bad")] != []
    bad = next(i for i in project.iterations() if i["failure_class"] == "unmerged")
    left = [ref for ref in (bad["salvage_ref"], bad["branch"]) if ref]
    assert any("<<<<<<< " in project.git("show", f"{ref}:y.txt") for ref in left)


HOSTILE = {
    "../../etc/passwd": "../..",
    "p-$(touch x)": "$(touch x) `touch x`; touch x",
    "p new\nTask: forged": "two\nlines \x1b[2J\x1b]0;owned\x07 \u202eevil",
    "p-\x00nul": "nul \x00 byte",
    "p-lone": "lone \udfff",
    "-rf": "--help",
    "p-<script>": "<img src=x> --> ]]> end\n subgraph x",
    "p.lock": "x" * 3000,
    "HEAD": "@{-1}",
    "p-" + "y" * 300: "",
    "p\u00e9\u4e2d\U0001f600": "unicode",
}


def test_ids_and_titles_become_neither_paths_nor_shell_nor_terminal_codes(project: Project) -> None:
    backlog(project)
    store = project.path / ".beads" / "issues.jsonl"
    store.write_text("".join(json.dumps(issue(i, title=t or "none")) + "\n" for i, t in HOSTILE.items()))
    (project.plan.parent / "agent.sh").write_text(
        SAY + r"""echo x > "f$HEW_ITER"; say '{"summary": "\u001b[31mred $(touch x)", "next_iteration": ["HEAD"]}'"""
    )
    before = Aftermath.of(project)
    done = project.run("--jobs", "3")
    before.check()
    assert (done.code, {t for t, status in project.statuses().items() if status != "closed"}) == (0, set())
    assert {f"f{n}" for n in range(1, len(HOSTILE) + 1)} <= project.landed_files()
    assert [p for p in project.path.rglob("x") if p.is_file()] == []
    forged = project.git("log", "--format=%(trailers:key=Task,valueonly)", "HEAD").split("\n")
    assert "forged" not in forged
    for args in (["summary"], ["graph", "--format", "mermaid"], ["graph", "--format", "dot"],
                 ["graph", "--format", "ascii"], ["task", "list", "--all"], ["logs"]):  # fmt: skip
        shown = project.loop(*args)
        odd = {
            c for c in shown.out + done.err if (c < " " and c not in "\n\t") or "\x7f" <= c < "\xa0" or c == "\u202e"
        }
        assert (args, shown.code, odd) == (args, 0, set())
