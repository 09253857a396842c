"""What must hold after any run, whatever its agents did: read from git, the tracker and the process table alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.project import Project, marked_processes, wait_until

SAY = "say() { printf '\\140\\140\\140loop_result\\n%s\\n\\140\\140\\140\\n' \"$1\"; }\n"
"""Shell for an agent's script: `say JSON` prints a loop_result."""

KEEP = '\ngit rev-parse HEAD >> "$PLACES/heads"\n'
"""Last line of an agent's script: remember what it has committed, for `Aftermath.check`."""

MAIN = 'M=$(dirname "$(git rev-parse --path-format=absolute --git-common-dir)")\n'
"""Shell: M is the user's checkout."""


def backlog(project: Project, *tasks: str, **more: Sequence[str]) -> None:
    """Tasks p-NAME written into the store at once; `more` are those with their dependencies (`b=["a"]`)."""
    rows = [(name, ()) for name in tasks] + [(name, tuple(needs)) for name, needs in more.items()]
    store = project.path / ".beads"
    store.mkdir(exist_ok=True)
    ignore = project.path / ".git" / "info" / "exclude"
    ignore.parent.mkdir(exist_ok=True)
    ignore.write_text(".beads/\n")
    with (store / "issues.jsonl").open("a") as file:
        for name, needs in rows:
            file.write(json.dumps(issue(f"p-{name}", needs=[f"p-{n}" for n in needs])) + "\n")


def issue(task: str, *, title: str = "", needs: Sequence[str] = ()) -> dict[str, object]:
    return {
        "id": task,
        "title": title or f"Task {task}",
        "status": "open",
        "priority": 2,
        "issue_type": "task",
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
        "dependencies": [{"issue_id": task, "depends_on_id": need, "type": "blocks"} for need in needs],
    }


@dataclass(frozen=True)
class Aftermath:
    """Taken before a run, checked after it."""

    project: Project
    head: str
    index: str
    status: str
    stash: str

    @classmethod
    def of(cls, project: Project) -> Aftermath:
        git = project.git
        return cls(
            project,
            git("rev-parse", "HEAD"),
            git("diff", "--cached"),
            git("status", "--porcelain"),
            git("stash", "list"),
        )

    def check(self, *, also_dirty: str = "") -> None:
        """`also_dirty`: what agents wrote into the user's checkout behind our back, as lines of `git status`."""
        project, git = self.project, self.project.git
        run = project.folder().name
        claimed = {t: v["assignee"] for t, v in project.tasks().items() if v["status"] == "in_progress"}
        assert claimed == {}
        wait_until(lambda: marked_processes(f"HEW_RUN_ID={run}") == [], timeout_s=3)
        assert "branch refs/heads/loop/" not in git("worktree", "list", "--porcelain")
        assert git("symbolic-ref", "--short", "HEAD") == "main"
        git("merge-base", "--is-ancestor", self.head, "HEAD")
        assert git("diff", "--cached") == self.index
        assert _by_path(git("status", "--porcelain")) == {**_by_path(self.status), **_by_path(also_dirty)}
        assert git("stash", "list") == self.stash
        assert git("for-each-ref", "refs/loop/*/integration", "refs/loop/*/candidate") == ""
        heads = project.places / "heads"
        kept = set(git("rev-list", "--all").split())
        assert not heads.exists() or set(heads.read_text().split()) <= kept


def _by_path(status: str) -> dict[str, str]:
    """Path to its two letters, without the blanks that the first line has lost."""
    return {path: letters for letters, path in (line.split(maxsplit=1) for line in status.splitlines())}


def fates(project: Project) -> dict[str, str]:
    """`TASK.ATTEMPT` without its `p-` to the fate of the iteration, with the failure class of a failed one."""
    return {
        f"{i['task_id'].removeprefix('p-')}.{i['attempt']}": i["failure_class"] or i["fate"]
        for i in project.iterations()
    }
