"""`loop demo`: a complete run on a throw-away repository, with a scripted agent in place of a real one."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import click

from hew_loop import config, launch, wiring
from hew_loop.commands.progress import Progress, form
from hew_loop.commands.run import is_interactive, tell
from hew_loop.core.policy import Scope
from hew_loop.core.state import RunState
from hew_loop.core.task import Edge
from hew_loop.demo import teashop
from hew_loop.errors import EXIT_FAILED, EXIT_OK, HewError, RepoError, UsageError
from hew_loop.repo.command import refusal, run
from hew_loop.repo.git import Git
from hew_loop.trackers.beads_issue import NewIssue
from hew_loop.trackers.beads_store import BeadsStore

CONFIG = """\
[loop]
runtime = "scripted"
jobs = {jobs}
attempts = 2

[loop.gate]
commands = ["sh check.sh"]

[runtime.scripted]
command = {agent}
prompt = "file"
"""

# In the repository's own configuration: a demo must not ask for a key to sign with, or run the user's hooks.
GIT_SETTINGS = {
    "user.name": "A scripted agent",
    "user.email": "agent@demo.invalid",
    "commit.gpgSign": "false",
    "core.hooksPath": os.devnull,
    "core.autocrlf": "false",
    "merge.conflictStyle": "merge",
}
ENDED_AS = {"landed": "done", "unchanged": "unchanged", "parked": "parked"}


@click.command("demo", short_help="Play a complete run in a throw-away repository.")
@click.option(
    "--dir", "directory", metavar="PATH", type=click.Path(path_type=Path), help="Where; must be empty or absent."
)
@click.option("-j", "--jobs", type=click.IntRange(2, 16), default=4, show_default=True, help="Agents at a time.")
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as one JSON object.")
def command(*, directory: Path | None, jobs: int, as_json: bool) -> int:
    """Play a complete run in a repository made for it: twelve tasks, one merge conflict that the second attempt
    resolves, and one task that never passes the tests and is parked. The agent is a shell script: no key, no network.
    The folder stays, to look around in; nothing outside of it is read or written.

    \b
    Examples:
      loop demo
      loop demo --dir /tmp/teashop --jobs 8
    """
    top = _folder(directory)
    env = _environment(top)
    git = _repository(top, jobs=jobs)
    tracker = wiring.embedded_tracker(git, env)
    ids = _backlog(tracker)
    policy = config.load(git.root, {"HEW_CONFIG": str(git.root / config.PROJECT_FILE)}).policy(scope=Scope("ready"))
    click.echo(f"loop: {len(ids)} tasks, {jobs} workers and a scripted agent, in {top}", err=True)
    with Progress(form(as_json=False, quiet=False, non_interactive=not is_interactive({}))) as progress:
        state = launch.start(
            git, policy, tracker, run_id=None, base=None, observers=progress.observers, settled=lambda _: None, env=env
        )
    tell(state, quiet=as_json)
    wrong = differences(state, ids)
    if as_json:
        click.echo(json.dumps(_outcome(state, git, ids, wrong), indent=2))
    else:
        click.echo(_epilogue(state, git, ids, wrong))
    if state.stopping == "cancelled":
        return state.exit_code or EXIT_FAILED
    return EXIT_FAILED if wrong else EXIT_OK


def differences(state: RunState, ids: Mapping[str, str]) -> tuple[str, ...]:
    """What did not go as the demo has planned it, in sentences; `ids` are the tasks' by their keys."""
    found: list[str] = []
    for task in teashop.TASKS:
        record = state.records.get(ids[task.key])
        phase = record.phase if record else "not started"
        if phase != ENDED_AS[task.ending]:
            found.append(f"{ids[task.key]} ({task.title}) should have ended as {ENDED_AS[task.ending]}, but is {phase}")
    pair = {ids[key] for key in teashop.CONFLICTING}
    if sum(i.fate == "conflict" and i.spec.task in pair for i in state.iterations.values()) != 1:
        found.append("one of the two tasks that change the same line should have met a conflict, once")
    if not any(i.why == "agent" and i.spec.task == ids[teashop.SUGGESTED] for i in state.iterations.values()):
        found.append(f"{ids[teashop.SUGGESTED]} should have been started because an agent suggested it")
    if state.verify is None or state.verify.verdict != "passed":
        found.append("the integrated tree should have passed the verify")
    if state.delivery is None or state.delivery.state != "merged":
        found.append("the result should have been delivered")
    return tuple(found)


def _folder(directory: Path | None) -> Path:
    try:
        if directory is None:
            return Path(tempfile.mkdtemp(prefix="loop-demo-")).resolve()
        top = directory.expanduser().resolve()
        top.mkdir(parents=True, exist_ok=True)
        if any(top.iterdir()):
            raise UsageError(f"{top} is not empty", hint="name a folder that is empty or not there yet, or none")
    except OSError as error:
        raise HewError(
            f"the demo's folder cannot be made: {error.strerror}", hint="name another one: loop demo --dir PATH"
        ) from error
    return top


def _environment(top: Path) -> dict[str, str]:
    """The user's, without what points the loop or an agent to a backlog, worktrees or a configuration of their own."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("HEW_", "BEADS_", "BD_"))}
    return {**others, "HEW_WORKTREE_ROOT": str(top / "worktrees")}


def _repository(top: Path, *, jobs: int) -> Git:
    """`<top>/teashop` with its first commit, and beside it the agent."""
    root = top / teashop.NAME
    agent = top / "agent.sh"
    files = {
        **teashop.FILES,
        # -B: two candidates can be checked out within one tick of the clock that tells whether a .pyc is still good.
        "check.sh": f"exec {shlex.quote(sys.executable)} -B -E -m unittest discover -s tests -t .\n",
        config.PROJECT_FILE: CONFIG.format(jobs=jobs, agent=json.dumps(["sh", _literal(agent)])),
    }
    with resources.as_file(resources.files("hew_loop.demo") / "agent.sh") as script:
        shutil.copyfile(script, agent)
    (top / "meeting").mkdir()
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    made = run(("init", "-q", "--template=", "--initial-branch=main"), cwd=root)
    if not made.ok:
        raise refusal(made, "init")
    git = Git.discover(root)
    if git.root != root:
        raise RepoError(f"git takes {git.root} for the demo's repository, not {root}", hint="see: env | grep GIT_")
    for name, value in GIT_SETTINGS.items():
        git.must("config", "--local", name, value)
    git.must("add", "-A")
    git.must("commit", "-q", "-m", "Open the tea shop")
    return git


def _literal(path: Path) -> str:
    """As an element of a runtime's command, where braces stand for something."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _backlog(store: BeadsStore) -> dict[str, str]:
    """File the tasks; ids by key."""
    ids: dict[str, str] = {}
    # Who suggests a task must know its id.
    for task in sorted(teashop.TASKS, key=lambda t: bool(t.suggests)):
        hint = f"next: {ids[task.suggests]}\n" if task.suggests else ""
        new = NewIssue(title=task.title, description=hint + task.text, priority=task.priority)
        ids[task.key] = store.add(new, creator="demo")
    for task in teashop.TASKS:
        for key in task.after:
            store.add_edge(ids[task.key], Edge(ids[key]), creator="demo")
    return ids


def _commands(state: RunState, git: Git, ids: Mapping[str, str]) -> dict[str, str]:
    """What to type next, and what for."""
    parked = state.records.get(ids["water"])
    bug = f"loop task show {parked.bug}" if parked and parked.bug else "loop task list"
    return {
        f"cd {shlex.quote(str(git.root))}": "",
        "loop summary": "what became of each task",
        "loop graph --format ascii": "why each iteration was started, and how it ended",
        "git log --graph --oneline": "what landed",
        bug: "the bug that was filed for the parked task",
    }


def _epilogue(state: RunState, git: Git, ids: Mapping[str, str], wrong: tuple[str, ...]) -> str:
    if wrong:
        told = ["The demo did not go as planned:", *(f"  {sentence}" for sentence in wrong)]
    else:
        told = [
            "The demo went as planned. One task gives water away, which the tests forbid: it is parked with its bug,",
            f"and for that `loop run` itself would have ended with exit code {state.exit_code}.",
        ]
    width = max(map(len, list(_commands(state, git, ids))[1:]))
    listed = [
        f"  {line.ljust(width)}  # {about}" if about else f"  {line}"
        for line, about in _commands(state, git, ids).items()
    ]
    here = Path(sys.executable).parent
    if shutil.which("loop") is None and (here / "loop").exists():
        listed.insert(0, f"  export PATH={shlex.quote(str(here))}:$PATH")
    return "\n".join(["", *told, "", "Look around:", *listed])


def _outcome(state: RunState, git: Git, ids: Mapping[str, str], wrong: tuple[str, ...]) -> dict[str, object]:
    records = {key: state.records.get(task) for key, task in ids.items()}
    return {
        "path": str(git.root),
        "run_id": state.run_id,
        "exit_code": state.exit_code,
        "as_planned": not wrong,
        "differences": list(wrong),
        "tasks": {
            key: {
                "id": ids[key],
                "phase": record.phase if record else None,
                "attempts": record.attempts if record else 0,
            }
            for key, record in records.items()
        },
        "next": list(_commands(state, git, ids)),
    }
