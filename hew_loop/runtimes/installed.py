"""What is known of each agent program beside its adapter: versions, memory, whether it tells a cost, how to log in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from hew_loop.runtimes import aider, claude, codex, gemini, logins, opencode
from hew_loop.runtimes.logins import Login, Place

Version = tuple[int, int, int]
_AVAILABLE: Final = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Installed:
    """Facts about one program; what is measured was measured on the newest recorded version."""

    recorded: tuple[Version, Version]
    """The oldest and the newest version whose output its adapter was built on."""
    peak_mib: int
    """Memory of one agent with its tools, at most; what the tools build and test comes on top."""
    install: str
    log_in: str
    asks_login: str
    """A command of its own that tells whether somebody is logged in; empty where there is none."""
    look: Callable[[Place], Login]
    tells_cost: bool = True
    tells_model: bool = True
    is_sandboxed: bool = False
    version_env: tuple[tuple[str, str], ...] = ()
    """For `--version`: so that asking leaves nothing behind."""

    def login(self, place: Place) -> Login:
        """Never raises: a file that cannot be read may hold a login."""
        try:
            return self.look(place)
        except logins.Unreadable as unreadable:
            return Login("unknown", str(unreadable))

    def was_tried(self, version: Version) -> bool:
        return self.recorded[0] <= version <= self.recorded[1]


INSTALLED: Final[Mapping[str, Installed]] = MappingProxyType(
    {
        "claude": Installed(
            recorded=claude.RECORDED_VERSIONS,
            peak_mib=235,
            install="npm install -g @anthropic-ai/claude-code",
            log_in="claude /login",
            asks_login="claude auth status",
            look=logins.claude_login,
        ),
        "codex": Installed(
            recorded=codex.RECORDED_VERSIONS,
            peak_mib=157,
            install="npm install -g @openai/codex",
            log_in="codex login",
            asks_login="codex login status",
            look=logins.codex_login,
            tells_cost=False,
            tells_model=False,
            is_sandboxed=True,
            # With a home of its own it makes links to itself in there, for `--version` too.
            version_env=(("CODEX_HOME", "/dev/null"),),
        ),
        "opencode": Installed(
            recorded=opencode.RECORDED_VERSIONS,
            peak_mib=650,
            install="npm install -g opencode-ai",
            log_in="opencode auth login",
            asks_login="opencode auth list",
            look=logins.opencode_login,
        ),
        "gemini": Installed(
            recorded=gemini.RECORDED_VERSIONS,
            peak_mib=410,
            install="npm install -g @google/gemini-cli",
            log_in="gemini, and choose how to sign in; or: export GEMINI_API_KEY=KEY",
            asks_login="",
            look=logins.gemini_login,
            tells_cost=False,
        ),
        "aider": Installed(
            recorded=aider.RECORDED_VERSIONS,
            peak_mib=230,
            install="python -m pip install aider-chat",
            log_in="export ANTHROPIC_API_KEY=KEY, or that of another provider",
            asks_login="",
            look=logins.aider_login,
        ),
    }
)


def available_mib(meminfo: str) -> float | None:
    """Of the text of Linux' `/proc/meminfo`: what a new program can have without swapping."""
    found = _AVAILABLE.search(meminfo)
    return int(found[1]) / 1024 if found else None
