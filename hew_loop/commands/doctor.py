"""`loop doctor`: check everything that a run needs, and say how to mend what is not right."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shlex import quote

import click

from hew_loop import config, wiring
from hew_loop.commands.doctor_runtimes import agent_findings
from hew_loop.core.policy import Policy
from hew_loop.core.task import Task
from hew_loop.engine import checkup
from hew_loop.engine.checkup import Finding, checked
from hew_loop.engine.gate import command_text
from hew_loop.engine.lock import RunLock
from hew_loop.engine.opening import detected
from hew_loop.engine.pruning import Survey
from hew_loop.engine.standing import Standing, standings
from hew_loop.errors import EXIT_FAILED, EXIT_OK, EXIT_UNAVAILABLE, HewError
from hew_loop.repo.command import version
from hew_loop.repo.git import MINIMUM_VERSION, Git
from hew_loop.reports.text import plain
from hew_loop.trackers.bd import BdTracker
from hew_loop.trackers.bd_checks import version_note
from hew_loop.trackers.beads_damage import damaged_lines
from hew_loop.trackers.choose import detect


@click.command("doctor", short_help="Check git, tracker, runtimes, configuration and leftovers.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON array.")
def command(*, as_json: bool) -> int:
    """Check git, the tracker, the agents (their programs, logins and memory), the configuration, and what earlier runs
    have left. Each finding is ok, warn or error, with the command that mends it. Writes nothing, tells no secret, and
    may be asked while a run is alive.

    Exit code 0 without an error, 1 with one, 69 outside of a repository.

    \b
    Examples:
      loop doctor
      loop doctor --json | jq '.[] | select(.level != "ok")'
    """
    findings = [*checked("git", _git_program)]
    git: Git | None = None
    try:
        git = Git.discover(Path.cwd())
    except HewError as error:
        findings.append(Finding("git", "error", error.message, error.hint))
    policy: Policy | None = None
    try:
        settings = config.load(git.root if git else Path.cwd(), os.environ)
        policy = settings.policy()
        findings += checked("configuration", partial(_configuration, settings))
    except HewError as error:
        findings.append(Finding("configuration", "error", error.message, error.hint))
    if policy is not None:
        findings += agent_findings(policy, git)
    if git is not None:
        findings += _repository(git, policy or Policy())
    _tell(findings, as_json=as_json)
    if git is None:
        return EXIT_UNAVAILABLE
    return EXIT_FAILED if any(f.level == "error" for f in findings) else EXIT_OK


def _repository(git: Git, policy: Policy) -> list[Finding]:
    runs: dict[str, Standing] = {}
    tasks: list[Task] = []

    def look_at_runs() -> Iterator[Finding]:
        lock = wiring.lock_path(git)
        holder = RunLock.holder(lock)
        runs.update(standings(git.root, live=holder.run_id if holder else None))
        yield from checkup.lock_findings(lock)
        yield from checkup.run_findings(git, runs)

    def look_at_tracker() -> Iterator[Finding]:
        yield from _tracker(git, tasks)
        kind = detect(git.root, os.environ.get("BEADS_DIR"))
        yield from checkup.claim_findings(tasks, runs, tracker=kind)

    return [
        *checked("git", partial(checkup.git_findings, git)),
        *checked("hooks", partial(checkup.hook_findings, git, policy.worktree)),
        *checked("gate", partial(_gate, git, policy)),
        *checked("runs", look_at_runs),
        *checked("tracker", look_at_tracker),
        *checked("worktrees", partial(checkup.place_findings, git)),
        *checked("leases", partial(checkup.lease_findings, git, runs)),
        *checked("worktrees", lambda: checkup.leftover_findings(Survey(git, runs, tasks))),
        *checked("refs", partial(checkup.stale_lock_findings, git, runs)),
    ]


def _git_program() -> Iterator[Finding]:
    found = version(Path.cwd())
    shown = ".".join(map(str, found))
    if found < MINIMUM_VERSION:
        oldest = ".".join(map(str, MINIMUM_VERSION[:2]))
        yield Finding("git", "error", f"git {shown} is too old", f"install git {oldest} or newer")
    else:
        yield Finding("git", "ok", f"git {shown}")


def _configuration(settings: config.Settings) -> Iterator[Finding]:
    files = [str(file.path) for file in settings.files if file.exists]
    yield Finding("configuration", "ok", f"read from {', '.join(files)}" if files else "none: all defaults")


def _gate(git: Git, policy: Policy) -> Iterator[Finding]:
    head = git.head().commit
    if head is None:
        return
    gate = detected(git, policy, head).gate
    if gate.commands:
        commands = " && ".join(command_text(c) for c in gate.commands)
        yield Finding("gate", "ok", f"{commands} (from {gate.origin})")
    else:
        text = f"none ({gate.origin}): what lands is not tested"
        yield Finding("gate", "warn", text, 'loop run --gate CMD, or in .hew.toml: [loop.gate] commands = ["CMD"]')


def _tracker(git: Git, tasks: list[Task]) -> Iterator[Finding]:
    """Also leaves the tasks in `tasks`, for what else is to be said about them."""
    store = wiring.open_tracker(git)
    if isinstance(store, BdTracker):
        yield from _bd(store, tasks)
        return
    file = store.directory / "issues.jsonl"
    if not file.exists():
        yield Finding("tracker", "ok", f"beads, with no task yet: {store.store}", "loop task add TITLE")
        return
    damaged = damaged_lines(store.directory)
    for number, reason in damaged[: checkup.MOST_OF_A_KIND]:
        yield Finding(
            "tracker", "error", f"{file}, line {number}: {reason}", f"${{EDITOR:-vi}} +{number} {quote(str(file))}"
        )
    if (more := len(damaged) - checkup.MOST_OF_A_KIND) > 0:
        yield Finding("tracker", "error", f"{more} more lines like these in {file}")
    if not damaged:
        tasks.extend(store.read())
        still_open = sum(not task.is_closed for task in tasks)
        yield Finding("tracker", "ok", f"beads, {still_open} of {len(tasks)} tasks open: {store.store}")


def _bd(tracker: BdTracker, tasks: list[Task]) -> Iterator[Finding]:
    version = tracker.version()
    if note := version_note(version):
        yield Finding("tracker", "warn", note, "try it on one task first: loop run --task ID")
    tasks.extend(tracker.read())
    still_open = sum(not task.is_closed for task in tasks)
    text = f"bd {version} ({tracker.program}), {still_open} of {len(tasks)} tasks open: {tracker.store}"
    yield Finding("tracker", "ok", text)


def _tell(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        click.echo(f"{finding.level:5}  {finding.check:{width}}  {plain(finding.text)}")
        if finding.fix:
            click.echo(f"{'':{width + 7}}  -> {plain(finding.fix)}")
