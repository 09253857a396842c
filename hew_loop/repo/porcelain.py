"""What git prints, read: NUL-separated listings become values. Names that are not UTF-8 leave as `\\xNN`, so that any
sink can write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

STATUS = ("status", "--porcelain=v2", "--branch", "-z", "--no-renames", "--ignore-submodules=dirty")


@dataclass(frozen=True, slots=True)
class DirtyPath:
    path: str
    staged: bool
    untracked: bool


@dataclass(frozen=True, slots=True)
class StatusEntry:
    """One line of `status`: `kind` is its first letter (1 changed, u unmerged, ? untracked), `code` the XY pair."""

    kind: str
    code: str
    raw: bytes

    @property
    def path(self) -> str:
        return shown(self.raw)


@dataclass(frozen=True, slots=True)
class Status:
    commit: str | None
    """None: HEAD is on a branch without a commit."""
    branch: str | None
    """None: HEAD is detached."""
    entries: tuple[StatusEntry, ...]


@dataclass(frozen=True, slots=True)
class ListedWorktree:
    path: Path
    commit: str | None
    branch: str | None
    """Short name; None when detached."""
    missing: bool
    """git says it may be pruned: nothing is there."""
    lock_reason: str | None = None
    """What was said when it was locked; None when it is not."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A line of `ls-files -v -s -z`. Tag `S` is skip-worktree, a lower-case one assume-unchanged, `H` ordinary."""

    tag: str
    mode: str
    blob: str
    stage: int
    raw: bytes


def shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def fields(output: bytes) -> list[bytes]:
    """The fields of a `-z` listing."""
    return output.split(b"\0")[:-1] if output.endswith(b"\0") else [f for f in output.split(b"\0") if f]


def is_under(path: str, prefixes: Sequence[str]) -> bool:
    """Whether a path is one of `prefixes` or lies below one; a slash at the end of either means nothing."""
    bare = path.rstrip("/")
    return any(bare == p or bare.startswith(p + "/") for p in (prefix.strip("/") for prefix in prefixes) if p)


def parse_status(output: bytes) -> Status:
    commit: str | None = None
    branch: str | None = None
    entries: list[StatusEntry] = []
    for line in fields(output):
        if line.startswith(b"# branch.oid "):
            oid = line[13:].decode()
            commit = None if oid == "(initial)" else oid
        elif line.startswith(b"# branch.head "):
            name = line[14:]
            branch = None if name == b"(detached)" else shown(name)
        elif line[:1] in b"1u":
            # "1 XY sub mH mI mW hH hI path", "u XY sub m1 m2 m3 mW h1 h2 h3 path"
            parts = line.split(b" ", 8 if line[:1] == b"1" else 10)
            entries.append(StatusEntry(kind=line[:1].decode(), code=parts[1].decode(), raw=parts[-1]))
        elif line[:1] == b"?":
            entries.append(StatusEntry(kind="?", code="??", raw=line[2:]))
    return Status(commit=commit, branch=branch, entries=tuple(entries))


def parse_worktrees(output: bytes) -> tuple[ListedWorktree, ...]:
    return tuple(_listed(block) for block in output.split(b"\0\0") if block.strip(b"\0"))


def _listed(block: bytes) -> ListedWorktree:
    lines = dict(_words(block))
    commit = lines.get("HEAD")
    branch = lines.get("branch")
    return ListedWorktree(
        path=Path(lines["worktree"]),
        commit=commit if commit and commit.strip("0") else None,
        branch=branch.removeprefix("refs/heads/") if branch else None,
        missing="prunable" in lines,
        lock_reason=lines.get("locked"),
    )


def _words(block: bytes) -> Iterator[tuple[str, str]]:
    for line in fields(block):
        word, _, rest = line.partition(b" ")
        yield word.decode(), rest.decode("utf-8", "surrogateescape")


def parse_index(output: bytes) -> Iterator[IndexEntry]:
    for line in fields(output):
        head, _, raw = line.partition(b"\t")
        tag, mode, blob, stage = head.decode().split(" ")
        yield IndexEntry(tag=tag, mode=mode, blob=blob, stage=int(stage), raw=raw)
