"""The front door: what `loop` says and how it exits, whatever happens behind it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from hew_loop import __version__, cli
from hew_loop.errors import LockHeld

Answer = tuple[int, str, str]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs `loop ARGS` in this process; `does` becomes the body of a command named `probe`."""

    def run(*args: str, does: Callable[[], Any] | None = None) -> Answer:
        if does is not None:
            module = ModuleType("hew_loop.commands.probe")
            vars(module)["command"] = click.command(name="probe")(does)
            monkeypatch.setitem(sys.modules, module.__name__, module)
            monkeypatch.setitem(cli.COMMANDS, "probe", cli.Entry("probe:command", "A probe."))
        monkeypatch.setattr(sys, "argv", ["/somewhere/loop", *args])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run


def _raise(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_the_help_line_of_a_command_is_the_commands_own(name: str) -> None:
    context = click.Context(cli.loop)
    command = cli.loop.get_command(context, name)
    assert command is not None
    assert command.get_short_help_str(limit=200) == cli.COMMANDS[name].help


def test_every_file_in_commands_is_reachable() -> None:
    files = {path.stem for path in Path(cli.__file__).with_name("commands").glob("[!_]*.py")}
    targets = {entry.target.split(":")[0] for entry in cli.COMMANDS.values()}
    assert targets <= files


def test_help_lists_every_command_and_imports_none() -> None:
    script = (
        "import sys\nfrom hew_loop import cli\nsys.argv = ['loop', '--help']\n"
        "try:\n    cli.main()\nfinally:\n    print('MODULES', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    text, _, modules = done.stdout.partition("MODULES")
    assert re.findall(r"^  ([a-z]+) ", text.partition("Commands:")[2], re.MULTILINE) == list(cli.COMMANDS)
    ours = {name for name in modules.split() if name.startswith("hew_loop.")}
    assert ours == {"hew_loop.cli", "hew_loop.errors"}
    assert not {"pydantic", "git", "anyio", "rich", "platformdirs"} & set(modules.split())


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hew_loop", "--version"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"loop {__version__}\n", "")


def test_what_a_command_returns_is_the_exit_code(answer: Callable[..., Answer]) -> None:
    assert answer("probe", does=lambda: 4) == (4, "", "")
    assert answer("probe", does=lambda: None) == (0, "", "")


def test_an_expected_error_is_a_sentence_and_a_hint_with_its_own_exit_code(answer: Callable[..., Answer]) -> None:
    error = LockHeld("the lock is held by run r1 (pid 4121)", hint="Wait, or: loop cancel r1")
    expected = (75, "", "loop: the lock is held by run r1 (pid 4121)\n  Wait, or: loop cancel r1\n")
    assert answer("probe", does=_raise(error)) == expected
    assert answer("probe", does=_raise(ExceptionGroup("tasks", [ExceptionGroup("inner", [error])]))) == expected


def test_a_wrong_option_exits_2_and_names_the_way_to_help(answer: Callable[..., Answer]) -> None:
    code, out, err = answer("probe", "--jbos", does=lambda: None)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: loop probe [OPTIONS]\nTry 'loop probe --help' for help.\n\nloop: No such option")


def test_an_unknown_command_exits_2(answer: Callable[..., Answer]) -> None:
    code, out, err = answer("frobnicate")
    assert (code, out) == (2, "")
    assert "loop: No such command 'frobnicate'" in err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BaseExceptionGroup("tasks", [KeyboardInterrupt()])])
def test_ctrl_c_exits_130_without_a_traceback(answer: Callable[..., Answer], error: BaseException) -> None:
    code, out, err = answer("probe", does=_raise(error))
    assert (code, out, err.strip()) == (130, "", "loop: interrupted")


def test_control_characters_in_a_message_do_not_reach_the_terminal(answer: Callable[..., Answer]) -> None:
    _, _, err = answer("probe", does=_raise(LockHeld("title \x1b]0;x\x07 \u202e\x9b31m\r end")))
    assert err == "loop: title \\x1b]0;x\\x07 \\u202e\\x9b31m\\r end\n"


def test_a_bug_exits_70_and_names_a_crash_file_that_holds_what_is_needed(
    answer: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "tok-1234567890")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    code, out, err = answer("probe", does=_raise(ValueError("unexpected tok-1234567890")))
    (crash,) = (home / "state").rglob("crash-*.txt")
    text = crash.read_text()
    assert (code, out) == (70, "")
    assert str(crash) in err
    assert "tok-1234567890" not in text + err
    assert f"hew-loop  {__version__}" in text
    assert "command   loop probe" in text
    assert "ValueError: unexpected ********" in text
    assert crash.stat().st_mode & 0o777 == 0o600


def test_a_bug_is_shown_whole_when_its_file_cannot_be_written(
    answer: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    (home / "state").write_text("a file where a directory should be")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    code, _, err = answer("probe", does=_raise(ValueError("unexpected")))
    assert code == 70
    assert "Traceback (most recent call last)" in err


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "hew_loop", "--help"], stdout=stdout, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (cli.EXIT_SIGPIPE, b"")


@pytest.mark.parametrize(
    ("typed", "offered"), [("gr", ["graph"]), ("de", ["deliver", "demo"]), ("--ver", ["--version"])]
)
def test_the_shell_can_complete(typed: str, offered: list[str]) -> None:
    env = {**os.environ, "_LOOP_COMPLETE": "bash_complete", "COMP_WORDS": f"loop {typed}", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-m", "hew_loop"], capture_output=True, text=True, check=False, env=env)
    assert sorted(line.partition(",")[2] for line in done.stdout.splitlines()) == offered
