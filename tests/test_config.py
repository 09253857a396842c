"""Layers, sources and refusals of the configuration, with real files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.commands.init import starter
from hew_loop.config import Settings, Sourced, load, parse_bytes, parse_duration
from hew_loop.config_schema import KEYS
from hew_loop.core.policy import (
    GateSettings,
    ModelSettings,
    PlannedCommand,
    PlannerSettings,
    Policy,
    RuntimeSettings,
    Scope,
    VerifySettings,
    WorktreeSettings,
)
from hew_loop.errors import UsageError

DOCS = Path(__file__).parents[1] / "docs" / "configuration.md"


def _load(root: Path, *, project: str = "", user: str = "", env: dict[str, str] | None = None) -> Settings:
    (root / ".hew.toml").write_text(project)
    (root / "user.toml").write_text(user)
    return load(root, {"HEW_USER_CONFIG": str(root / "user.toml"), **(env or {})})


def _refusal(root: Path, project: str, **env: str) -> tuple[str, str]:
    with pytest.raises(UsageError) as refused:
        _load(root, project=project, env=env)
    assert refused.value.exit_code == 2
    return refused.value.message.replace(f"{root}/", ""), refused.value.hint


def test_without_any_file_the_policy_is_the_default_policy(tmp_path: Path) -> None:
    settings = load(tmp_path, {"HOME": str(tmp_path)})
    assert settings.policy() == Policy()
    assert {value.layer for value in settings.values.values()} == {"default"}
    assert [(file.layer, file.path, file.exists) for file in settings.files] == [
        ("user", tmp_path / ".config/hew/config.toml", False),
        ("project", tmp_path / ".hew.toml", False),
    ]


def test_every_key_reaches_the_policy(tmp_path: Path) -> None:
    project = """
        [loop]
        jobs = 4
        runtime = "mine"
        attempts = 2
        iter_timeout = "2h30m"
        stall_timeout = 90
        max_iter = 7
        budget_tokens = 1000
        budget_usd = 2.5
        budget_wall = "8h"
        guard_trip = 9
        max_new = 0
        accept_no_change = false
        until_empty = false
        poll_s = 1
        tracker = "beads"
        deliver = "branch"
        max_output = "1MiB"
        [loop.gate]
        commands = ["just test", ["ruff", "check"]]
        timeout = "5m"
        [loop.end_of_run]
        verify_tests = false
        verify_command = "just check"
        verify_budget_wall = "1m"
        [loop.model]
        default = "m"
        by_priority = { P1 = "b", P0 = "a" }
        by_type.bug = "c"
        [runtime.mine]
        command = ["my-agent", "{task_id}"]
        prompt = "file"
        success = [0, 3]
        [worktree]
        setup = ["npm", "ci"]
        setup_inputs = ["package-lock.json"]
        copy = [".env"]
        link = ["node_modules"]
        env = { B = "2", A = "1" }
        pristine = true
    """
    scope = Scope("epics", ("e-1",))
    assert _load(tmp_path, project=project).policy(scope=scope, model="forced") == Policy(
        scope=scope,
        jobs=4,
        runtime="mine",
        runtimes=(RuntimeSettings("mine", ("my-agent", "{task_id}"), "file", (0, 3)),),
        model=ModelSettings("forced", "m", (("P0", "a"), ("P1", "b")), (("bug", "c"),)),
        attempts=2,
        iter_timeout_s=9000.0,
        stall_timeout_s=90.0,
        max_iter=7,
        budget_tokens=1000,
        budget_usd=2.5,
        budget_wall_s=28800.0,
        guard_trip=9,
        max_new=0,
        poll_s=1.0,
        until_empty=False,
        accept_no_change=False,
        deliver="branch",
        gate=GateSettings((PlannedCommand("just test"), PlannedCommand(("ruff", "check"))), 300.0, ".hew.toml"),
        verify=VerifySettings(False, (PlannedCommand("just check"),), 60.0, ".hew.toml"),
        worktree=WorktreeSettings(
            ("npm", "ci"), ("package-lock.json",), (".env",), ("node_modules",), (("A", "1"), ("B", "2")), True
        ),
        max_output_bytes=1024 * 1024,
    )


def test_the_stronger_layer_wins_and_every_value_knows_its_source(tmp_path: Path) -> None:
    settings = _load(
        tmp_path,
        user="[loop]\njobs = 2\nattempts = 2\nguard_trip = 2\nmax_iter = 2",
        project="[loop]\njobs = 3\nattempts = 3\nguard_trip = 3",
        env={"HEW_LOOP_JOBS": "4", "HEW_LOOP_ATTEMPTS": "4"},
    )
    policy = settings.policy({"loop.jobs": 5, "loop.attempts": None})
    assert (policy.jobs, policy.attempts, policy.guard_trip, policy.max_iter) == (5, 4, 3, 2)
    assert settings.values["loop.jobs"] == Sourced("4", "environment", "HEW_LOOP_JOBS")
    assert settings.values["loop.guard_trip"] == Sourced(3, "project", str(tmp_path / ".hew.toml"))
    assert settings.values["loop.max_iter"] == Sourced(2, "user", str(tmp_path / "user.toml"))
    assert settings.values["loop.runtime"] == Sourced("claude", "default")


def test_an_absent_key_never_resets_a_lower_layer(tmp_path: Path) -> None:
    user = "[loop.end_of_run]\nverify_tests = false\n[loop.gate]\ncommands = ['make']\n[runtime.a]\ncommand = ['a']"
    project = "[loop]\njobs = 2\n[loop.end_of_run]\n[loop.gate]\ntimeout = '1m'\n[runtime.a]\nprompt = 'arg'"
    policy = _load(tmp_path, user=user, project=project).policy()
    assert policy.verify.enabled is False
    assert policy.gate == GateSettings((PlannedCommand("make"),), 60.0, str(tmp_path / "user.toml"))
    assert policy.runtimes == (RuntimeSettings("a", ("a",), "arg"),)


def test_maps_merge_per_key_and_lists_are_replaced(tmp_path: Path) -> None:
    user = "[loop.model.by_priority]\nP0 = 'a'\nP1 = 'b'\n[worktree]\ncopy = ['one', 'two']\nenv = { X = '1' }"
    project = "[loop.model.by_priority]\nP1 = 'c'\n[worktree]\ncopy = ['three']\nenv = { Y = '2' }"
    policy = _load(tmp_path, user=user, project=project).policy()
    assert policy.model.by_priority == (("P0", "a"), ("P1", "c"))
    assert policy.worktree == WorktreeSettings(copy=("three",), env=(("X", "1"), ("Y", "2")))


def test_hew_config_alone_replaces_both_files(tmp_path: Path) -> None:
    alone = tmp_path / "alone.toml"
    alone.write_text("[loop]\nattempts = 9")
    env = {"HEW_CONFIG": str(alone), "HEW_LOOP_GUARD_TRIP": "8"}
    policy = _load(tmp_path, user="[loop]\njobs = 2", project="[loop]\njobs = 3", env=env).policy()
    assert (policy.jobs, policy.attempts, policy.guard_trip) == (1, 9, 8)


def test_a_named_configuration_that_is_not_there_is_refused(tmp_path: Path) -> None:
    message, _ = _refusal(tmp_path, "", HEW_CONFIG=str(tmp_path / "gone.toml"))
    assert message == "HEW_CONFIG names gone.toml, which does not exist"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[loop]\njob = 1", "unknown key loop.job", "The nearest known name is loop.jobs."),
        (
            "[loop]\nverify_tests = true",
            "unknown key loop.verify_tests",
            "The nearest known name is loop.end_of_run.verify_tests.",
        ),
        (
            "[loop.model.by_prio]\nP0 = 'x'",
            "unknown key loop.model.by_prio",
            "The nearest known name is loop.model.by_priority.",
        ),
        ("[runtime.x]\ncmd = ['x']", "unknown key runtime.x.cmd", "The nearest known name is runtime.x.command."),
        ("[worktree]\ncopies = []", "unknown key worktree.copies", "The nearest known name is worktree.copy."),
        ("[notify]\nx = 1", "notify.x: this version knows no key in [notify]", "Remove the table."),
    ],
)
def test_an_unknown_key_is_refused_with_its_file_and_the_nearest_name(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    assert _refusal(tmp_path, text) == (f".hew.toml: {message}", hint)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jobs = 0", "loop.jobs = 0: input should be greater than or equal to 1"),
        ("jobs = 65", "loop.jobs = 65: input should be less than or equal to 64"),
        ("jobs = '4'", 'loop.jobs = "4": input should be a valid integer'),
        ("jobs = true", "loop.jobs = true: input should be a valid integer"),
        ("jobs = 2026-01-01", 'loop.jobs = "2026-01-01": input should be a valid integer'),
        (
            "iter_timeout = 'x'",
            'loop.iter_timeout = "x": not a duration: write 90s, 15m, 2h30m, or a number of seconds',
        ),
        ("iter_timeout = 0", "loop.iter_timeout = 0: must be more than zero"),
        ("max_output = '1 gig'", 'loop.max_output = "1 gig": not a size: write 64MiB, 10MB, or a number of bytes'),
        ("deliver = 'pr'", 'loop.deliver = "pr": this version knows merge and branch'),
        ("tracker = 'checklist'", 'loop.tracker = "checklist": this version knows auto, bd and beads'),
        ("budget_usd = nan", "loop.budget_usd = NaN: input should be a finite number"),
        (
            "gate.commands = [1]",
            "loop.gate.commands = [1]: "
            "write a string, which runs through sh -c, or a list of strings, which is an argv",
        ),
        (
            "model.by_priority.P9 = 'x'",
            "loop.model.by_priority.P9 = \"P9\": input should be 'P0', 'P1', 'P2', 'P3' or 'P4'",
        ),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    assert _refusal(tmp_path, f"[loop]\n{text}")[0] == f".hew.toml: {message}"


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", ""])
def test_worktree_paths_stay_inside_the_repository(tmp_path: Path, path: str) -> None:
    message, _ = _refusal(tmp_path, f"[worktree]\ncopy = ['{path}']")
    assert message == f'.hew.toml: worktree.copy = "{path}": write a path relative to the repository root, without ..'


def test_a_variable_with_a_bad_value_is_named(tmp_path: Path) -> None:
    message, _ = _refusal(tmp_path, "", HEW_LOOP_JOBS="many")
    assert message.startswith('HEW_LOOP_JOBS: loop.jobs = "many": input should be a valid integer')


def test_a_bad_command_line_value_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^command line: loop\.iter_timeout = \"x\": not a duration"):
        _load(tmp_path).policy({"loop.iter_timeout": "x"})


@pytest.mark.parametrize(
    ("text", "line"), [("[loop]\njobs = \n", 2), ("[loop]\njobs = 1\n[loop", 3), ("a = 1\na = 2\n", 2)]
)
def test_broken_toml_is_one_sentence_with_file_and_line(tmp_path: Path, text: str, line: int) -> None:
    message, _ = _refusal(tmp_path, text)
    assert message.startswith(f".hew.toml, line {line}: not valid TOML: ")
    assert "\n" not in message


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".hew.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        load(tmp_path, {"HOME": str(tmp_path)})


def test_tables_of_others_are_left_alone(tmp_path: Path) -> None:
    assert _load(tmp_path, project="title = 'x'\n[skills]\nanything = [1]\n[lsp.x]\ny = 1").policy() == Policy()


def test_keys_of_hew_keep_their_names(tmp_path: Path) -> None:
    project = "[loop]\nfallback_runtime = 'codex'\n[loop.planner]\nenabled = false\nbudget_tokens = 1"
    assert _load(tmp_path, project=project).policy() == Policy(
        fallback_runtime="codex", planner=PlannerSettings(enabled=False, budget_tokens=1)
    )


def test_a_runtime_without_a_command_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.hew\.toml: \[runtime\.x\] has no command"):
        _load(tmp_path, project="[runtime.x]\nprompt = 'arg'").policy()


@pytest.mark.parametrize(
    ("project", "override", "expected"),
    [
        ("", None, GateSettings()),
        ("", ("make",), GateSettings((PlannedCommand("make"),), origin="--gate")),
        ("[loop.gate]\ncommands = 'make'", None, GateSettings((PlannedCommand("make"),), origin=".hew.toml")),
        ("[loop.gate]\ncommands = 'make'", (), GateSettings(origin="--no-gate")),
        ("[loop.gate]\ncommands = []", None, GateSettings(origin=".hew.toml")),
    ],
)
def test_no_gate_said_and_no_gate_asked_for_are_two_things(
    tmp_path: Path, project: str, override: object, expected: GateSettings
) -> None:
    assert _load(tmp_path, project=project).policy({"loop.gate.commands": override}).gate == expected


def test_the_environment_can_set_every_plain_key_of_loop(tmp_path: Path) -> None:
    env = {
        "HEW_LOOP_GATE_COMMANDS": "just test",
        "HEW_LOOP_END_OF_RUN_VERIFY_TESTS": "false",
        "HEW_LOOP_BUDGET_WALL": "8h",
    }
    policy = _load(tmp_path, env=env).policy()
    assert policy == Policy(
        gate=GateSettings((PlannedCommand("just test"),), origin="HEW_LOOP_GATE_COMMANDS"),
        verify=VerifySettings(enabled=False),
        budget_wall_s=28800.0,
    )


def test_the_starter_file_sets_nothing_and_with_every_key_switched_on_it_still_loads(tmp_path: Path) -> None:
    assert _load(tmp_path, project=starter()).policy() == Policy()
    switched_on = re.sub(r"^#(?=\[|[a-z_]+ = )", "", starter(), flags=re.MULTILINE)
    settings = _load(tmp_path, project=switched_on)
    assert [
        key.name for key in KEYS if not key.is_map and key.name.replace("NAME", "NAME") not in settings.values
    ] == []
    settings.policy()


def test_the_documentation_names_every_key_and_every_variable() -> None:
    text = DOCS.read_text()
    assert [key.name for key in KEYS if f"`{key.name}`" not in text] == []
    assert [key.variable for key in KEYS if key.variable and f"`{key.variable}`" not in text] == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("2h30m", 9000), ("1d", 86400), ("1.5h", 5400), ("45", 45), (2.5, 2.5)],
)
def test_a_duration_is_read(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "  ", "2h30", "m", "-5s", "1w", "5 m", True, -1, float("inf"), float("nan"), None, [1]]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize(("text", "size"), [("64MiB", 64 * 2**20), ("10MB", 10**7), ("1 GiB", 2**30), ("7", 7), (0, 0)])
def test_a_size_is_read(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "1.5MiB", "-1", True, -1, None])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_bytes(text)
