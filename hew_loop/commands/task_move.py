"""`loop task import` and `loop task export`: the backlog moved between the embedded store and bd, nothing lost."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import click

from hew_loop.commands.embedded_store import acting, open_file
from hew_loop.errors import HewError, UsageError
from hew_loop.repo.git import Git
from hew_loop.trackers.bd_call import Bd
from hew_loop.trackers.beads_export import Exported, export
from hew_loop.trackers.beads_format import encode
from hew_loop.trackers.beads_import import Merged, merge, read_import
from hew_loop.trackers.choose import detect, missing_bd, store_directory
from hew_loop.trackers.to_bd import Plan, Step, Wish, plan, version_of
from hew_loop.trackers.to_bd_run import carry_out, held

_END = "END_OF_LINES"


@click.command("import", short_help="Take in beads' own JSONL, merged by id.")
@click.argument("file", metavar="FILE|-", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Say what would change; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def import_command(*, file: BinaryIO, dry_run: bool, as_json: bool) -> None:
    """Take in beads' own JSONL: an issues.jsonl of any version, or what `bd export` prints.

    Issues are matched by id; the newer `updated_at` wins, and the file's where both are equal. Members that the file
    does not know stay. Labels and edges go with the winner, comments of both sides are kept. A bad line is named by
    its number, and nothing is written then.

    \b
    Examples:
      bd export --all | loop task import -
      loop task import old/issues.jsonl --dry-run
    """
    lines = read_import(file.read(), "stdin" if file.name == "<stdin>" else str(file.name))
    now = datetime.now(UTC)
    store = open_file()
    if dry_run:
        merged = merge(store.read(), lines, now).result
    else:
        merged = store.update(lambda snapshot: merge(snapshot, lines, now))
    click.echo(encode(dataclasses.asdict(merged.counts)) if as_json else _told(merged, dry_run=dry_run))
    if merged.skipped:
        _note(f"Skipped, the store's is newer: {_some(merged.skipped)}")


@click.command("export", short_help="Write beads' own JSONL, or the commands that bring bd up to date.")
@click.argument("place", metavar="[FILE|-|DIR]", default="-")
@click.option("--all", "everything", is_flag=True, help="Memories, deleted issues and children without parent too.")
@click.option("--to-bd", is_flag=True, help="Print the bd commands that bring bd's store in DIR to what this one says.")
@click.option("--against", type=click.File("rb"), help="With --to-bd: bd's present export; bd is not asked then.")
@click.option("--apply", "do_apply", is_flag=True, help="With --to-bd: run the commands, and look that bd took them.")
@click.option("--overwrite", is_flag=True, help="With --to-bd: also issues that are newer in bd.")
@click.option("--delete", is_flag=True, help="With --to-bd: delete what only bd has.")
@click.option("--json", "as_json", is_flag=True, help="Print the commands, or the counts of a FILE, as JSON.")
def export_command(
    *,
    place: str,
    everything: bool,
    to_bd: bool,
    against: BinaryIO | None,
    do_apply: bool,
    overwrite: bool,
    delete: bool,
    as_json: bool,
) -> None:
    """Write the backlog as beads' own JSONL, sorted by id, which `bd import` of 0.49 and 1.x reads.

    An import cannot carry everything into a bd store that has the issues already: labels and edges that were taken
    out, deletions, dates. `--to-bd` compares with what bd holds and prints exactly the commands that are needed, for
    a shell; with --apply it runs them itself. Issues that are newer in bd are left alone. DIR is the directory of bd's
    store or the one above it; left out, it is that of this repository (then BEADS_DIR names the store to export).

    \b
    Examples:
      loop task export backlog.jsonl
      loop task export --to-bd ../shop
      loop task export --to-bd ../shop --apply
      loop task export --to-bd --against shop.jsonl --json
    """
    if not to_bd and (against or do_apply or overwrite or delete):
        raise UsageError("--against, --apply, --overwrite and --delete belong to --to-bd.")
    if to_bd:
        options = _ToBd(place, against, overwrite=overwrite, delete=delete)
        _replay(options, do_apply=do_apply, as_json=as_json)
    else:
        _write(place, export(open_file().read(), everything=everything), as_json=as_json)


def _told(merged: Merged, *, dry_run: bool) -> str:
    counts = dataclasses.asdict(merged.counts)
    shown = [f"{number} {name}" for name, number in counts.items() if number or name in ("created", "updated")]
    return ("Would be: " if dry_run else "") + ", ".join(shown)


def _write(place: str, exported: Exported, *, as_json: bool) -> None:
    if place == "-":
        if as_json:
            raise UsageError("The export itself goes to stdout; for the counts as JSON name a FILE.")
        sys.stdout.buffer.write(exported.raw)
    else:
        _replace(Path(place), exported.raw)
        counts = {"issues": exported.issues, "memories": exported.memories, "left_out": list(exported.left_out)}
        click.echo(encode(counts) if as_json else f"{exported.issues} issues, {exported.memories} memories")
    if exported.left_out:
        _note(f"Left out, their parent is missing (--all takes them): {_some(exported.left_out)}")


def _replace(path: Path, raw: bytes) -> None:
    """Whole or not at all; something that is no file (a pipe, /dev/stdout) is written into."""
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(raw)
            return
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            aside.write_bytes(raw)
            aside.replace(path.resolve())
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise HewError(f"Cannot write {path}: {error.strerror}.") from error


@dataclasses.dataclass(frozen=True, slots=True)
class _ToBd:
    place: str
    against: BinaryIO | None
    overwrite: bool
    delete: bool


def _replay(options: _ToBd, *, do_apply: bool, as_json: bool) -> None:
    store = open_file().read()
    bd = _bd(options.place) if do_apply or options.against is None else None
    version, present = held(bd) if bd else ((), ())
    if options.against is not None:
        present = read_import(options.against.read(), str(options.against.name))
        version = version or version_of(present)
    wish = Wish(version=version, overwrite=options.overwrite, delete=options.delete)
    found = plan(store, present, wish)
    if bd and do_apply:
        carry_out(bd, store, found, wish, actor=acting())
    if as_json:
        click.echo(_as_json(found, version))
    elif do_apply:
        click.echo(f"{len(found.steps)} commands were run.")
    else:
        click.echo("\n".join(map(_as_shell, found.steps)), nl=bool(found.steps))
    _tell(found)


def _bd(place: str) -> Bd:
    """The bd on PATH for the store that `place` names. Raises HewError when there is none of either."""
    if place == "-":
        git = Git.discover(Path.cwd())
        root, directory = git.root, store_directory(git.root, None)
    else:
        root = Path(place).absolute()
        directory = store_directory(root, None if (root / ".beads").is_dir() else str(root))
    if detect(root, str(directory)) != "bd":
        raise UsageError(f"There is no store of bd's in {directory}.", hint="Name its directory: --to-bd DIR")
    program = shutil.which("bd")
    if program is None:
        raise missing_bd(directory)
    return Bd(program, directory.absolute(), dict(os.environ))


def _as_json(found: Plan, version: Sequence[int]) -> str:
    commands = [
        {"argv": list(step.argv), **({"stdin": step.stdin.decode()} if step.stdin else {})} for step in found.steps
    ]
    notes = {"newer_in_bd": found.newer_in_bd, "only_in_bd": found.only_in_bd, "lost": found.lost}
    return encode({"bd": ".".join(map(str, version)), "commands": commands, **notes})


def _as_shell(step: Step) -> str:
    line = " ".join(map(_quoted, step.argv))
    if not step.stdin:
        return f"{line} </dev/null"  # or it would read the rest of the commands, where they are piped to a shell
    text = "".join(c if c.isprintable() or c == "\n" else _json_escape(c) for c in step.stdin.decode())
    return f"{line} <<'{_END}'\n{text}{_END}"


def _quoted(word: str) -> str:
    """For a shell; what a terminal could obey is written as an escape, in the form of bash, zsh and ksh."""
    if all(c.isprintable() or c == "\n" for c in word):
        return shlex.quote(word)
    escaped = re.sub(r"[\\']", r"\\\g<0>", word)
    return "$'" + "".join(c if c.isprintable() else "".join(f"\\x{b:02x}" for b in c.encode()) for c in escaped) + "'"


def _json_escape(c: str) -> str:
    units = c.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _tell(found: Plan) -> None:
    if found.newer_in_bd:
        _note(f"Left alone, bd's is newer (import it first, or --overwrite): {_some(found.newer_in_bd)}")
    if found.only_in_bd:
        _note(f"Only in bd, kept (--delete deletes them): {_some(found.only_in_bd)}")
    for sentence in found.lost:
        _note(sentence)


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:10]) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")


def _note(text: str) -> None:
    click.echo("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text), err=True)
