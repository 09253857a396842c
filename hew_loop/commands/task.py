"""`loop task …`: the embedded tracker at the command line, with bd's own words for options and members."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import get_args

import click

from hew_loop.commands.embedded_store import acting, open_store
from hew_loop.commands.task_move import export_command, import_command
from hew_loop.core.task import Edge, Task
from hew_loop.trackers.beads_format import Issue, encode
from hew_loop.trackers.beads_issue import NewIssue
from hew_loop.trackers.beads_ready import ReadyQuery, Sort, full_type, listing_order, ready_tasks
from hew_loop.trackers.beads_store import BeadsStore

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON with beads' member names.")


def _priority(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    digits = value.upper().removeprefix("P")
    if digits not in {"0", "1", "2", "3", "4"}:
        raise click.BadParameter(f"{value!r} is not a priority: 0 (most urgent) to 4, or P0 to P4.")
    return int(digits)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def task() -> None:
    """Work with the embedded tracker: the backlog in .beads/issues.jsonl.

    \b
    Example:
      loop task add "Write the parser" -p 1
      loop task ready
    """


task.add_command(import_command)
task.add_command(export_command)


@task.command()
@click.argument("title")
@click.option("-d", "--description", default="", help="What is to be done, and why.")
@click.option(
    "-p", "--priority", callback=_priority, default="2", metavar="0..4", show_default=True, help="0 is most urgent."
)
@click.option("-t", "--type", "kind", default="task", show_default=True, help="task, bug, feature, epic, chore, …")
@click.option("-l", "--label", "labels", multiple=True, help="May be repeated; commas separate too.")
@click.option("--parent", default="", metavar="ID", help="Make it a child of this task.")
@click.option("--dep", "deps", multiple=True, metavar="ID", help="It waits for this task; may be repeated.")
@click.option("--acceptance", default="", help="When it is done.")
@click.option("--design", default="", help="How it is to be done.")
@click.option("--notes", default="", help="Anything else.")
@JSON_OPTION
def add(
    *,
    title: str,
    description: str,
    priority: int,
    kind: str,
    labels: tuple[str, ...],
    parent: str,
    deps: tuple[str, ...],
    acceptance: str,
    design: str,
    notes: str,
    as_json: bool,
) -> None:
    """Add a task and print it: its id and its title.

    \b
    Example:
      loop task add "Write the parser" -p 1 -l core --dep shop-a1b
    """
    store = open_store()
    new = NewIssue(
        title=title,
        description=description,
        design=design,
        acceptance=acceptance,
        notes=notes,
        type=full_type(kind),
        priority=priority,
        labels=_words(labels),
        parent=parent,
        waits_for=_words(deps),
    )
    task_id = store.add(new, creator=acting())
    if as_json:
        click.echo(encode(store.issues([task_id])[0]))
    else:
        click.echo(f"{harmless(task_id)}  {harmless(title)}")


@task.command("list")
@click.option("--all", "with_closed", is_flag=True, help="Closed tasks too.")
@click.option("-s", "--status", "statuses", multiple=True, help="Only these; may be repeated, commas separate too.")
@JSON_OPTION
def list_tasks(*, with_closed: bool, statuses: tuple[str, ...], as_json: bool) -> None:
    """List tasks by priority, newest first; closed ones only with --all or --status closed.

    \b
    Example:
      loop task list --status open,in_progress
    """
    wanted = _words(statuses)
    store = open_store()
    found = [each for each in store.read() if (each.status in wanted if wanted else with_closed or not each.is_closed)]
    _print(store, sorted(found, key=listing_order), as_json=as_json)


@task.command()
@click.option("-n", "--limit", type=click.IntRange(min=0), default=0, help="At most so many; 0 means all.")
@click.option("-s", "--sort", type=click.Choice(get_args(Sort)), default="priority", show_default=True)
@click.option("-t", "--type", "kind", default="", help="Only this type.")
@click.option("--exclude-type", "exclude_types", multiple=True, help="Not this type; may be repeated.")
@click.option("-l", "--label", "labels", multiple=True, help="With this label; all of them when repeated.")
@click.option("--label-any", "any_labels", multiple=True, help="With at least one of these labels.")
@click.option("--exclude-label", "exclude_labels", multiple=True, help="Without this label; may be repeated.")
@click.option("-a", "--assignee", default="", help="Assigned to this name.")
@click.option("-u", "--unassigned", is_flag=True, help="Assigned to nobody; wins over --assignee.")
@click.option("-p", "--priority", callback=_priority, metavar="0..4", help="Exactly this priority.")
@click.option("--parent", default="", metavar="ID", help="Below this task, at any depth.")
@click.option("--include-deferred", is_flag=True, help="Tasks put off to a later date too.")
@click.option("--include-ephemeral", is_flag=True, help="Ephemeral tasks too.")
@JSON_OPTION
def ready(
    *,
    limit: int,
    sort: Sort,
    kind: str,
    exclude_types: tuple[str, ...],
    labels: tuple[str, ...],
    any_labels: tuple[str, ...],
    exclude_labels: tuple[str, ...],
    assignee: str,
    unassigned: bool,
    priority: int | None,
    parent: str,
    include_deferred: bool,
    include_ephemeral: bool,
    as_json: bool,
) -> None:
    """List what can be started now: open, waiting for nothing, not put off. The same set as `bd ready`.

    \b
    Example:
      loop task ready --sort oldest --exclude-label needs-human
    """
    query = ReadyQuery(
        limit=limit,
        sort=sort,
        type=kind,
        exclude_types=_words(exclude_types),
        labels=_words(labels),
        any_labels=_words(any_labels),
        exclude_labels=_words(exclude_labels),
        assignee=assignee,
        unassigned=unassigned,
        priority=priority,
        parent=parent,
        include_deferred=include_deferred,
        include_ephemeral=include_ephemeral,
    )
    store = open_store()
    _print(store, ready_tasks(store.tasks(), query, datetime.now(UTC)), as_json=as_json)


@task.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@JSON_OPTION
def show(*, ids: tuple[str, ...], as_json: bool) -> None:
    """Show tasks with all their texts.

    \b
    Example:
      loop task show shop-a1b
    """
    store = open_store()
    issues = store.issues(ids)
    if as_json:
        _print_array(issues)
    else:
        click.echo("\n\n".join(_sheet(issue) for issue in issues))


@task.group()
def dep() -> None:
    """Say which task waits for which.

    \b
    Example:
      loop task dep add shop-b2c shop-a1b
    """


@dep.command("add")
@click.argument("task_id", metavar="ID")
@click.argument("blocker", metavar="BLOCKER")
@click.option("-t", "--type", "kind", default="blocks", show_default=True, help="blocks, parent-child, related, …")
@JSON_OPTION
def dep_add(*, task_id: str, blocker: str, kind: str, as_json: bool) -> None:
    """Make ID wait for BLOCKER (with --type parent-child: make it a child of BLOCKER).

    \b
    Example:
      loop task dep add shop-b2c shop-a1b
    """
    open_store().add_edge(task_id, Edge(blocker, kind), creator=acting())
    if as_json:
        click.echo(encode({"status": "added", "issue_id": task_id, "depends_on_id": blocker, "type": kind}))
    else:
        click.echo(f"{harmless(task_id)} -> {harmless(blocker)} ({harmless(kind)})")


@dep.command("remove")
@click.argument("task_id", metavar="ID")
@click.argument("blocker", metavar="BLOCKER")
@JSON_OPTION
def dep_remove(*, task_id: str, blocker: str, as_json: bool) -> None:
    """Remove the edge from ID to BLOCKER, of whatever type.

    \b
    Example:
      loop task dep remove shop-b2c shop-a1b
    """
    was_there = open_store().remove_edge(task_id, blocker)
    if as_json:
        click.echo(encode({"status": "removed", "issue_id": task_id, "depends_on_id": blocker}))
    else:
        what = "removed" if was_there else "there was none"
        click.echo(f"{harmless(task_id)} -> {harmless(blocker)}: {what}")


@task.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@click.option("-r", "--reason", default="", help="Why; kept with the task.")
@JSON_OPTION
def close(*, ids: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Close tasks; those that waited for them become ready.

    \b
    Example:
      loop task close shop-a1b --reason "landed by hand"
    """
    store = open_store()
    store.issues(ids)  # an unknown id among them: nothing is closed
    for task_id in ids:
        store.close(task_id, reason)
    _report(store, ids, "closed", as_json=as_json)


@task.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@click.option("-r", "--reason", default="", help="Why; appended to the notes.")
@JSON_OPTION
def reopen(*, ids: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Open tasks again, assigned to nobody.

    \b
    Example:
      loop task reopen shop-a1b --reason "the bug is back"
    """
    store = open_store()
    store.issues(ids)
    for task_id in ids:
        store.reopen(task_id, reason)
    _report(store, ids, "open", as_json=as_json)


def harmless(text: str) -> str:
    """`text` on one line, with what a terminal could obey written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _words(values: Iterable[str]) -> tuple[str, ...]:
    """Repeated and comma-separated values as one tuple, each once."""
    words = (word.strip() for value in values for word in value.split(","))
    return tuple(dict.fromkeys(word for word in words if word))


def _print(store: BeadsStore, tasks: Sequence[Task], *, as_json: bool) -> None:
    if as_json:
        _print_array(store.issues([each.id for each in tasks]))
    elif tasks:
        click.echo("\n".join(_row(each) for each in tasks))
    else:
        click.echo("No tasks.", err=True)


def _print_array(issues: Sequence[Issue]) -> None:
    """One issue per line: quick to write, and good to read with grep too."""
    click.echo("[" + ",".join("\n" + encode(issue) for issue in issues) + ("\n]" if issues else "]"))


def _report(store: BeadsStore, ids: Sequence[str], state: str, *, as_json: bool) -> None:
    if as_json:
        _print_array(store.issues(ids))
    else:
        click.echo("\n".join(f"{harmless(task_id)}  {state}" for task_id in ids))


def _row(each: Task) -> str:
    status = "" if each.status == "open" else f"  [{harmless(each.status)}]"
    kind = "" if each.type == "task" else f"{harmless(each.type)}: "
    return f"{harmless(each.id)}  P{each.priority}  {kind}{harmless(each.title)}{status}"


def _sheet(issue: Issue) -> str:
    """One task for people: a line for each short member, a block for each text."""
    edges: list[Issue] = issue.get("dependencies") or []
    short = {
        "status": issue.get("status") or "open",
        "priority": f"P{issue.get('priority', 0)}",
        "type": issue.get("issue_type") or "task",
        "assignee": issue.get("assignee"),
        "labels": ", ".join(issue.get("labels") or ()),
        "edges": ", ".join(f"{edge['depends_on_id']} ({edge.get('type') or 'blocks'})" for edge in edges),
        "created": issue.get("created_at"),
        "updated": issue.get("updated_at"),
        "closed": issue.get("closed_at"),
        "reason": issue.get("close_reason"),
    }
    lines = [f"{harmless(issue['id'])}  {harmless(issue.get('title') or '')}"]
    lines += [f"  {name:<9} {harmless(str(value))}" for name, value in short.items() if value]
    for name in ("description", "design", "acceptance_criteria", "notes"):
        text: str = issue.get(name) or ""
        if text:
            lines += ["", name.replace("_", " ").upper(), *(harmless(line) for line in text.splitlines())]
    return "\n".join(lines)
