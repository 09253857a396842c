"""Whether somebody is logged in to an agent program: read from where each keeps it, and nothing of it is ever told.

An answer names a variable or a file, never what is in it. "unknown" is an honest answer: a keychain, a helper program
or another cloud cannot be looked into, and a file that cannot be read may hold a login.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final, Literal, cast

State = Literal["present", "absent", "unknown"]
Table = Mapping[str, Any]

PROVIDER_KEYS: Final = (
    *("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY", "DEEPSEEK_API_KEY"),
    *("GROQ_API_KEY", "MISTRAL_API_KEY", "XAI_API_KEY"),
)
"""Of programs that work with any provider; that there are more is why another `…_API_KEY` makes it unknown."""

_CLAUDE_KEYS: Final = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
_CLAUDE_CLOUDS: Final = tuple(
    f"CLAUDE_CODE_USE_{cloud}"
    for cloud in ("BEDROCK", "VERTEX", "FOUNDRY", "GATEWAY", "MANTLE", "ANTHROPIC_AWS", "ANTHROPIC_GOOGLE_CLOUD")
)
_GEMINI_CLOUDS: Final = (
    *("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_GCA", "GOOGLE_GEMINI_BASE_URL", "CLOUD_SHELL"),
    *("GEMINI_CLI_USE_COMPUTE_ADC", "GOOGLE_APPLICATION_CREDENTIALS"),
)
# A key that was put where the name of its variable belongs must not be told.
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
_AIDER_KEY: Final = re.compile(r"^\s*(?:\w+-)?api-key\s*:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Login:
    """`where`: the variable or the file that says so; for an absent one, what was looked at."""

    state: State
    where: str
    fix: str = ""
    """What logs in, where it is not the program's usual command."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where programs look: `folder` is the repository, for those that read files there."""

    env: Mapping[str, str]
    home: Path
    folder: Path
    is_mac: bool = False

    def first_set(self, names: Iterable[str]) -> str | None:
        return next((name for name in names if self.env.get(name, "").strip()), None)

    def directory(self, variable: str, default: str) -> Path:
        """What the variable names, else the default below the home directory."""
        return Path(self.env.get(variable) or self.home / default)


class Unreadable(Exception):
    """It is there, and nobody can tell what is in it. The message names the file alone."""


def claude_login(place: Place) -> Login:
    if name := place.first_set(_CLAUDE_KEYS):
        return Login("present", f"${name}")
    if name := place.first_set(_CLAUDE_CLOUDS):
        return Login("unknown", f"${name} asks for the credentials of a cloud")
    folder = place.directory("CLAUDE_CONFIG_DIR", ".claude")
    file = folder / ".credentials.json"
    if _json(file).get("claudeAiOauth"):
        return Login("present", str(file))
    settings = _json(folder / "settings.json")
    if any(_table(settings.get("env")).get(name) for name in _CLAUDE_KEYS):
        return Login("present", str(folder / "settings.json"))
    if settings.get("apiKeyHelper"):
        return Login("unknown", f"{folder / 'settings.json'} names a program that gives the key")
    own = (folder if place.env.get("CLAUDE_CONFIG_DIR") else place.home) / ".claude.json"
    if _json(own).get("primaryApiKey"):
        return Login("present", str(own))
    if place.is_mac:
        return Login("unknown", "it may be in the keychain, which is not looked into")
    return Login("absent", f"{_names(_CLAUDE_KEYS)}, {file}")


def codex_login(place: Place) -> Login:
    """`$OPENAI_API_KEY` alone is no login: the recorded versions send their requests without it."""
    if place.first_set(["CODEX_API_KEY"]):
        return Login("present", "$CODEX_API_KEY")
    folder = place.directory("CODEX_HOME", ".codex")
    config = _toml(folder / "config.toml")
    if (login := _codex_provider(place, config, folder / "config.toml")) is not None:
        return login
    file = folder / "auth.json"
    kept = _json(file)
    if kept.get("OPENAI_API_KEY") or kept.get("tokens"):
        return Login("present", str(file))
    if kept or place.first_set(["CODEX_ACCESS_TOKEN"]):
        return Login("unknown", str(file) if kept else "$CODEX_ACCESS_TOKEN may be one")
    if config.get("cli_auth_credentials_store", "file") != "file":
        return Login("unknown", f"{folder / 'config.toml'} keeps it in a keyring, which is not looked into")
    fix = "printenv OPENAI_API_KEY | codex login --with-api-key" if place.first_set(["OPENAI_API_KEY"]) else ""
    return Login("absent", f"$CODEX_API_KEY, {file}", fix)


def _codex_provider(place: Place, config: Table, file: Path) -> Login | None:
    """A provider of the user's own has its own key; None where it is codex' login that counts."""
    profile = _table(_table(config.get("profiles")).get(str(config.get("profile"))))
    name = profile.get("model_provider") or config.get("model_provider")
    provider = _table(_table(config.get("model_providers")).get(str(name)))
    if provider.get("requires_openai_auth") or name in (None, "openai"):
        return None
    key = str(provider.get("env_key") or "")
    if not key:
        return Login("unknown", f"the provider in {file} names no variable for its key")
    if not _VARIABLE.fullmatch(key):
        return Login("unknown", f"the env_key in {file} does not look like the name of a variable")
    if place.first_set([key]):
        return Login("present", f"${key}")
    return Login("absent", f"${key}, the env_key in {file}", f"export {key}=KEY")


def opencode_login(place: Place) -> Login:
    if name := place.first_set([*PROVIDER_KEYS, "OPENCODE_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY"]):
        return Login("present", f"${name}")
    file = place.directory("XDG_DATA_HOME", ".local/share") / "opencode" / "auth.json"
    if _json(file):
        return Login("present", str(file))
    folder = place.directory("XDG_CONFIG_HOME", ".config") / "opencode"
    configs = [folder / "opencode.json", folder / "opencode.jsonc", folder / "config.json"]
    if config := next((path for path in configs if _text(path) is not None), None):
        return Login("unknown", f"{config} may have a provider of its own")
    if name := place.first_set(["OPENCODE_CONFIG", "OPENCODE_CONFIG_CONTENT", *_other_keys(place)]):
        return Login("unknown", f"${name} may be for it")
    return Login("absent", f"the variables of providers, {file}")


def gemini_login(place: Place) -> Login:
    if place.first_set(["GEMINI_API_KEY"]):
        return Login("present", "$GEMINI_API_KEY")
    if name := place.first_set(_GEMINI_CLOUDS):
        return Login("unknown", f"${name} asks for the credentials of a cloud")
    home = Path(place.env.get("GEMINI_CLI_HOME") or place.home)
    for file in (home / ".gemini" / ".env", home / ".env"):
        if "GEMINI_API_KEY" in _assigned(file):
            return Login("present", str(file))
    file = home / ".gemini" / "oauth_creds.json"
    if _json(file):
        return Login("present", str(file))
    chosen = _table(_table(_json(home / ".gemini" / "settings.json").get("security")).get("auth")).get("selectedType")
    if chosen == "gemini-api-key" or _text(home / ".gemini" / "gemini-credentials.json") is not None:
        return Login("unknown", "it may be in the keychain, which is not looked into")
    if chosen in ("vertex-ai", "compute-default-credentials", "gateway"):
        return Login("unknown", f"{home / '.gemini' / 'settings.json'} asks for the credentials of a cloud")
    return Login("absent", f"$GEMINI_API_KEY, {file}")


def aider_login(place: Place) -> Login:
    if name := place.first_set(PROVIDER_KEYS):
        return Login("present", f"${name}")
    for folder in (place.folder, place.home):
        if any(name.endswith("_API_KEY") for name in _assigned(folder / ".env")):
            return Login("present", str(folder / ".env"))
        if _AIDER_KEY.search(_text(folder / ".aider.conf.yml") or ""):
            return Login("present", str(folder / ".aider.conf.yml"))
    if _assigned(file := place.home / ".aider" / "oauth-keys.env"):
        return Login("present", str(file))
    if name := place.first_set(_other_keys(place)):
        return Login("unknown", f"${name} may be for it")
    return Login("absent", "the variables of providers, .env and .aider.conf.yml")


def _other_keys(place: Place) -> list[str]:
    return sorted(name for name in place.env if name.endswith("_API_KEY"))


def _names(variables: Iterable[str]) -> str:
    return ", ".join(f"${name}" for name in variables)


def _text(path: Path) -> str | None:
    """None when there is no such file. Raises Unreadable, for a pipe too: reading it could wait for somebody."""
    try:
        if not S_ISREG(path.stat().st_mode):
            raise Unreadable(f"{path} is no plain file")
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        raise Unreadable(f"{path} cannot be read") from None


def _json(path: Path) -> Table:
    """Empty when there is no such file. Raises Unreadable."""
    text = _text(path)
    try:
        return _table(json.loads(text)) if text and text.strip() else {}
    except (ValueError, RecursionError):
        raise Unreadable(f"{path} is no JSON") from None


def _toml(path: Path) -> Table:
    try:
        return tomllib.loads(_text(path) or "")
    except (ValueError, RecursionError):
        raise Unreadable(f"{path} is no TOML") from None


def _assigned(path: Path) -> set[str]:
    """The names that a file of `NAME=value` lines gives a value."""
    lines = [line.strip().removeprefix("export ").partition("=") for line in (_text(path) or "").splitlines()]
    return {name.strip() for name, _, value in lines if value.strip().strip("'\"")}


def _table(value: object) -> Table:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
