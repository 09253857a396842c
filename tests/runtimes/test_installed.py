"""What is known of an installed agent: whether it was tried, what it takes, and who is logged in, telling no secret."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hew_loop.runtimes.installed import INSTALLED, available_mib
from hew_loop.runtimes.logins import Login, Place

SECRET = "sk-0123456789abcdefghij"
CODEX_PROVIDER = 'model_provider = "mine"\n[model_providers.mine]\nbase_url = "http://localhost"\n'


def login(tmp_path: Path, agent: str, *, is_mac: bool = False, **env: str) -> Login:
    found = INSTALLED[agent].login(Place(env, tmp_path / "home", tmp_path / "repo", is_mac=is_mac))
    assert SECRET not in repr(found)
    return found


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("agent", "variable"),
    [
        ("claude", "ANTHROPIC_API_KEY"),
        ("claude", "ANTHROPIC_AUTH_TOKEN"),
        ("claude", "CLAUDE_CODE_OAUTH_TOKEN"),
        ("codex", "CODEX_API_KEY"),
        ("opencode", "OPENAI_API_KEY"),
        ("opencode", "OPENCODE_API_KEY"),
        ("gemini", "GEMINI_API_KEY"),
        ("aider", "DEEPSEEK_API_KEY"),
    ],
)
def test_a_key_in_the_environment_is_a_login_and_an_empty_one_is_none(
    tmp_path: Path, agent: str, variable: str
) -> None:
    assert login(tmp_path, agent, **{variable: SECRET}) == Login("present", f"${variable}")
    assert login(tmp_path, agent, **{variable: ""}).state == "absent"


@pytest.mark.parametrize(
    ("agent", "file", "text"),
    [
        ("claude", "home/.claude/.credentials.json", json.dumps({"claudeAiOauth": {"accessToken": SECRET}})),
        ("claude", "home/.claude/settings.json", json.dumps({"env": {"ANTHROPIC_API_KEY": SECRET}})),
        ("claude", "home/.claude.json", json.dumps({"primaryApiKey": SECRET})),
        ("codex", "home/.codex/auth.json", json.dumps({"OPENAI_API_KEY": SECRET, "tokens": None})),
        ("codex", "home/.codex/auth.json", json.dumps({"tokens": {"access_token": SECRET}})),
        ("opencode", "home/.local/share/opencode/auth.json", json.dumps({"zen": {"type": "api", "key": SECRET}})),
        ("gemini", "home/.gemini/oauth_creds.json", json.dumps({"access_token": SECRET})),
        ("gemini", "home/.gemini/.env", f"export GEMINI_API_KEY='{SECRET}'\n"),
        ("aider", "repo/.env", f"OPENAI_API_KEY={SECRET}\n"),
        ("aider", "home/.aider.conf.yml", f"model: x\nanthropic-api-key: {SECRET}\n"),
        ("aider", "home/.aider/oauth-keys.env", f'OPENROUTER_API_KEY="{SECRET}"\n'),
    ],
)
def test_a_login_is_found_in_the_file_where_its_program_keeps_it(
    tmp_path: Path, agent: str, file: str, text: str
) -> None:
    assert login(tmp_path, agent).state == "absent"
    path = write(tmp_path, file, text)
    assert login(tmp_path, agent) == Login("present", str(path))


@pytest.mark.parametrize(
    ("agent", "file", "text"),
    [
        ("claude", "home/.claude/.credentials.json", "{}"),
        ("claude", "home/.claude/.credentials.json", ""),
        ("claude", "home/.claude/settings.json", json.dumps({"env": {"ANTHROPIC_API_KEY": ""}})),
        ("codex", "home/.codex/config.toml", 'model = "gpt-5-codex"\n'),
        ("opencode", "home/.local/share/opencode/auth.json", "{}"),
        ("gemini", "home/.gemini/.env", "GEMINI_API_KEY=\n#GEMINI_API_KEY=x\n"),
        ("aider", "repo/.env", "OPENAI_API_KEY=\nOTHER=1\n"),
    ],
)
def test_a_file_without_a_login_in_it_is_none(tmp_path: Path, agent: str, file: str, text: str) -> None:
    write(tmp_path, file, text)
    assert login(tmp_path, agent).state == "absent"


@pytest.mark.parametrize(
    ("agent", "file"),
    [
        ("claude", "home/.claude/.credentials.json"),
        ("codex", "home/.codex/auth.json"),
        ("codex", "home/.codex/config.toml"),
        ("opencode", "home/.local/share/opencode/auth.json"),
        ("gemini", "home/.gemini/oauth_creds.json"),
        ("aider", "repo/.env"),
    ],
)
def test_a_file_that_cannot_be_read_may_hold_a_login_and_a_pipe_is_not_waited_for(
    tmp_path: Path, agent: str, file: str
) -> None:
    path = tmp_path / file
    path.mkdir(parents=True)
    assert login(tmp_path, agent) == Login("unknown", f"{path} is no plain file")
    path.rmdir()
    os.mkfifo(path)
    assert login(tmp_path, agent) == Login("unknown", f"{path} is no plain file")
    path.unlink()
    path.write_bytes(f"{{ {SECRET} \xff".encode("latin-1"))
    assert login(tmp_path, agent).state == ("absent" if agent == "aider" else "unknown")


@pytest.mark.parametrize(
    ("agent", "env"),
    [
        ("claude", {"CLAUDE_CODE_USE_BEDROCK": "1"}),
        ("codex", {"CODEX_ACCESS_TOKEN": SECRET}),
        ("opencode", {"SOME_OTHER_API_KEY": SECRET}),
        ("gemini", {"GOOGLE_GENAI_USE_VERTEXAI": "true"}),
        ("aider", {"SOME_OTHER_API_KEY": SECRET}),
    ],
)
def test_what_may_be_a_login_elsewhere_is_not_called_absent(tmp_path: Path, agent: str, env: dict[str, str]) -> None:
    assert login(tmp_path, agent, **env).state == "unknown"


@pytest.mark.parametrize(
    ("agent", "file", "text"),
    [
        ("claude", "home/.claude/settings.json", json.dumps({"apiKeyHelper": "give-key"})),
        ("codex", "home/.codex/config.toml", 'cli_auth_credentials_store = "keyring"\n'),
        ("codex", "home/.codex/config.toml", CODEX_PROVIDER),
        ("opencode", "home/.config/opencode/opencode.json", "{}"),
        ("gemini", "home/.gemini/settings.json", json.dumps({"security": {"auth": {"selectedType": "vertex-ai"}}})),
        ("gemini", "home/.gemini/gemini-credentials.json", "encrypted"),
    ],
)
def test_a_keyring_a_helper_and_a_provider_of_ones_own_are_not_looked_into(
    tmp_path: Path, agent: str, file: str, text: str
) -> None:
    write(tmp_path, file, text)
    assert login(tmp_path, agent).state == "unknown"


def test_the_keychain_of_a_mac_cannot_be_seen(tmp_path: Path) -> None:
    assert login(tmp_path, "claude", is_mac=True).state == "unknown"
    assert login(tmp_path, "claude", is_mac=True, ANTHROPIC_API_KEY=SECRET).state == "present"


def test_a_directory_of_its_own_counts_in_place_of_the_usual_one(tmp_path: Path) -> None:
    for agent, variable, name, text in (
        ("claude", "CLAUDE_CONFIG_DIR", ".credentials.json", {"claudeAiOauth": {"accessToken": SECRET}}),
        ("claude", "CLAUDE_CONFIG_DIR", ".claude.json", {"primaryApiKey": SECRET}),
        ("codex", "CODEX_HOME", "auth.json", {"tokens": {"access_token": SECRET}}),
        ("opencode", "XDG_DATA_HOME", "opencode/auth.json", {"zen": {"key": SECRET}}),
        ("gemini", "GEMINI_CLI_HOME", ".gemini/oauth_creds.json", {"access_token": SECRET}),
    ):
        folder = tmp_path / f"{agent}-{name.replace('/', '-')}"
        path = write(folder, name, json.dumps(text))
        assert login(tmp_path, agent, **{variable: str(folder)}) == Login("present", str(path))
        assert login(tmp_path, agent, **{variable: str(tmp_path / "nothing")}).state == "absent"


def test_the_key_of_codex_is_that_of_its_provider(tmp_path: Path) -> None:
    """An OpenAI key in the environment is none of codex' own logins: it is not sent."""
    auth = tmp_path / "home" / ".codex" / "auth.json"
    absent = Login("absent", f"$CODEX_API_KEY, {auth}", "printenv OPENAI_API_KEY | codex login --with-api-key")
    assert login(tmp_path, "codex", OPENAI_API_KEY=SECRET) == absent
    config = write(tmp_path, "home/.codex/config.toml", CODEX_PROVIDER + 'env_key = "MY_KEY"\n')
    assert login(tmp_path, "codex", MY_KEY=SECRET) == Login("present", "$MY_KEY")
    assert login(tmp_path, "codex") == Login("absent", f"$MY_KEY, the env_key in {config}", "export MY_KEY=KEY")
    config.write_text(CODEX_PROVIDER + f'env_key = "{SECRET}"\n')
    assert login(tmp_path, "codex").state == "unknown"
    profile = '[profiles.p]\nmodel_provider = "openai"\n'
    config.write_text('profile = "p"\n' + CODEX_PROVIDER + 'env_key = "MY_KEY"\n' + profile)
    assert login(tmp_path, "codex", MY_KEY=SECRET) == Login("absent", f"$CODEX_API_KEY, {auth}")
    config.write_text(CODEX_PROVIDER + "requires_openai_auth = true\n")
    write(tmp_path, "home/.codex/auth.json", json.dumps({"OPENAI_API_KEY": SECRET}))
    assert login(tmp_path, "codex") == Login("present", str(auth))


def test_versions_between_the_oldest_and_the_newest_recorded_one_were_tried() -> None:
    tried = INSTALLED["claude"].was_tried
    versions = [(2, 1, 196), (2, 1, 197), (2, 1, 300), (2, 1, 329), (2, 1, 330), (10, 0, 0)]
    assert [tried(version) for version in versions] == [False, True, True, True, False, False]


def test_free_memory_is_what_can_be_had_without_swapping() -> None:
    assert available_mib("MemTotal:  9 kB\nMemFree:   1 kB\nMemAvailable:    2097152 kB\n") == 2048
    assert available_mib("MemTotal: 9 kB\n") is None
