"""What every prompt of a run begins with: how to work, and what the project says about itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from hew_loop.core.policy import Policy
from hew_loop.core.skill import SKILL
from hew_loop.engine.run_folder import RunFolder
from hew_loop.errors import TrackerError, UsageError
from hew_loop.repo.git import Git

PRIMER = ".hew/PRIME.md"


def skill(git: Git, policy: Policy, base: str) -> str:
    """The built-in instructions, or the file that replaces them. Raises UsageError when `base` does not hold it."""
    path = policy.prompt_file
    if path is None:
        return SKILL
    text = git.read_file_at(base, path)
    if text is None:
        raise UsageError(
            f"loop.prompt.file = {path!r}: there is no such file in the base commit {base[:12]}",
            hint=f"commit it, or take the key out: git add {path} && git commit",
        )
    return text.decode("utf-8", "replace")


def primer(git: Git, folder: RunFolder, base: str, ask: Callable[[], str] | None) -> tuple[str, str]:
    """The primer, and why there is none where it could not be read: `.hew/PRIME.md` of the base, else what `ask` says.

    The tracker is asked once in a run, and its answer kept, since what it remembers changes while the run works.
    """
    written = git.read_file_at(base, PRIMER)
    if written is not None:
        return written.decode("utf-8", "replace"), ""
    if ask is None:
        return "", ""
    with suppress(FileNotFoundError):
        return folder.primer.read_bytes().decode("utf-8", "replace"), ""
    try:
        text, problem = ask(), ""
    except TrackerError as error:
        text, problem = "", f"prompts go without what the tracker knows of the project: {error.message}"
    with suppress(OSError):  # a full disk ends the run by its journal
        folder.primer.write_bytes(text.encode("utf-8", "replace"))
    return text, problem
