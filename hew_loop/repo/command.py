"""How git is called: the options and environment that keep a user's configuration, hooks and locks out of our way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hew_loop import process
from hew_loop.errors import RepoError
from hew_loop.repo.porcelain import shown

TIMEOUT_S = 600.0

_OPTIONS = (
    "--no-optional-locks",  # a plain `status` takes index.lock, and an agent's commit fails
    *(
        word
        for setting in (
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "core.safecrlf=false",
            "gc.auto=0",
            "maintenance.auto=false",
            "commit.gpgsign=false",
            "merge.verifySignatures=false",
            "log.showSignature=false",
            "rerere.enabled=false",
            "submodule.recurse=false",
            "color.ui=false",
            "i18n.commitEncoding=utf-8",
            "core.filesRefLockTimeout=2000",  # git's own bounded wait for the lock of a ref
            "core.packedRefsTimeout=5000",
        )
        for word in ("-c", setting)
    ),
)
DURABLE = ("-c", "core.fsync=committed")
_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "0",
    "GIT_ICASE_PATHSPECS": "0",
}


def refusal(done: process.Completed, doing: str) -> RepoError:
    """What git said when it would not, as an error for people."""
    if done.timed_out:
        return RepoError(f"git {doing} did not end in time and was stopped.")
    if done.exit_code is None:
        return RepoError(f"git cannot be started: {done.error}", hint="Install git 2.38 or newer.")
    words = [line for line in shown(done.stderr).splitlines() if line and not line.startswith("hint:")]
    hint = "Free some disk space." if b"No space left on device" in done.stderr else ""
    return RepoError(f"git {doing} failed: {words[-1] if words else f'exit code {done.exit_code}'}", hint=hint)


def run(
    args: Sequence[str],
    *,
    cwd: Path,
    stdin: bytes = b"",
    timeout_s: float = TIMEOUT_S,
    env: Mapping[str, str] | None = None,
) -> process.Completed:
    environment = process.child_environment({**_ENVIRONMENT, **(env or {})})
    return process.run(("git", *_OPTIONS, *args), cwd=cwd, env=environment, timeout_s=timeout_s, stdin=stdin)


def version(start: Path) -> tuple[int, int, int]:
    done = run(("version",), cwd=start)
    if not done.ok:
        raise refusal(done, "version")
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", shown(done.stdout))
    if found is None:
        raise RepoError(f"git does not tell its version: {shown(done.stdout)!r}")
    return int(found[1]), int(found[2]), int(found[3] or 0)
