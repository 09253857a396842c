from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.core.policy import PlannedCommand
from hew_loop.core.stack import DetectedCommand, Stack, detect

PYTEST = 'PATH="$PWD/.venv/bin:$PATH" python3 -m pytest'
NO_TEST = {"scripts": {"test": 'echo "Error: no test specified" && exit 1'}}


def stack_of(tree: Mapping[str, str | object]) -> Stack:
    texts = {path: text if isinstance(text, str) else json.dumps(text) for path, text in tree.items()}
    return detect(texts, texts.get)


def commands_of(tree: Mapping[str, str | object]) -> list[tuple[object, ...]]:
    return [(c.kind, c.command, *((c.directory,) if c.directory else ())) for c in stack_of(tree).commands]


def commands_that_test(tree: Mapping[str, str | object]) -> list[object]:
    return [c.command for c in stack_of(tree).of_kind("test")]


def test_nothing_is_found_in_an_empty_repository() -> None:
    assert stack_of({"README.md": "make test\n"}) == Stack()


def test_a_justfile_speaks_for_the_whole_repository() -> None:
    tree = {"justfile": "test:\n  x\nlint:\n  y\n", "Makefile": "test:\nlint:\n", "Cargo.toml": "", "go.mod": ""}
    assert stack_of(tree) == Stack(
        (
            DetectedCommand(("just", "test"), "test", "", "justfile recipe test"),
            DetectedCommand(("just", "lint"), "lint", "", "justfile recipe lint"),
        )
    )


def test_a_detected_command_is_planned_without_its_origin() -> None:
    found = DetectedCommand(("npm", "run", "lint"), "lint", "web", "web/package.json script lint")
    assert found.planned == PlannedCommand(("npm", "run", "lint"), "lint", "web")


def test_a_justfile_with_only_lint_does_not_hide_the_makefiles_test() -> None:
    tree = {".justfile": "lint:\n  y\n", "Makefile": "test:\n\tx\nlint:\n\tz\n"}
    assert commands_of(tree) == [("test", ("make", "test")), ("lint", ("just", "lint"))]


def test_a_makefile_with_only_test_does_not_hide_the_packages_lint() -> None:
    tree = {"Makefile": "test:\n\tx\n", "package.json": {"scripts": {"test": "jest", "lint": "eslint ."}}}
    assert commands_of(tree) == [("test", ("make", "test")), ("lint", ("npm", "run", "lint"))]


@pytest.mark.parametrize(
    ("justfile", "has_test"),
    [
        ("test:", True),
        ("@test: build\n  x", True),
        ("test *args:\n  x", True),
        ("test name='a:b # c' $flag=(x + 'y'):\n  x", True),
        ("test filter = '':\n  x", True),
        ("[unix]\ntest:\n  x", True),
        ("alias test := check\ncheck:\n  x", True),
        ("test name:\n  needs an argument", False),
        ("test +names:\n  needs one", False),
        ("test := 'a variable'", False),
        ("# test:\nbuild:\n  test:", False),
        ("tests:\n  x\ntest-all:\n  x", False),
        ("alias t := test2", False),
    ],
)
def test_a_recipe_counts_when_just_can_run_it_by_its_name(justfile: str, has_test: bool) -> None:
    assert commands_that_test({"justfile": justfile}) == ([("just", "test")] if has_test else [])


@pytest.mark.parametrize(
    ("makefile", "has_test"),
    [
        ("test: build\n\tx", True),
        ("lint test:\n\tx", True),
        ("check \\\n test: build\n\tx", True),
        ("test:: a\n\tx", True),
        ("a test &: b\n\tx", True),
        ("test: FLAGS := -v\ntest: build", True),
        (".PHONY: test\nbuild:\n\ttest: x", False),
        ("test := x\nTEST = test: y", False),
        ("test: FLAGS = -v", False),
        ("test: export A ?= b", False),
        ("# test: x\ntests:\n\tx", False),
    ],
)
def test_a_make_target_counts_when_a_rule_makes_it(makefile: str, has_test: bool) -> None:
    assert commands_that_test({"Makefile": makefile}) == ([("make", "test")] if has_test else [])


def test_make_reads_its_own_first_makefile_and_so_do_we() -> None:
    assert commands_that_test({"GNUmakefile": "build:\n", "Makefile": "test:\n\tx\n"}) == []


@pytest.mark.parametrize(
    ("files", "manager"),
    [
        ({}, "npm"),
        ({"package-lock.json": ""}, "npm"),
        ({"pnpm-lock.yaml": ""}, "pnpm"),
        ({"yarn.lock": ""}, "yarn"),
        ({"bun.lock": ""}, "bun"),
        ({"bun.lockb": ""}, "bun"),
    ],
)
def test_the_lock_file_names_the_package_manager(files: dict[str, str], manager: str) -> None:
    tree = {"package.json": {"scripts": {"test": "jest"}}, **files}
    assert commands_of(tree) == [("test", (manager, "run", "test"))]


def test_without_a_lock_file_the_package_names_its_manager() -> None:
    assert commands_that_test({"package.json": {"packageManager": "pnpm@9.1.0", "scripts": {"test": "jest"}}}) == [
        ("pnpm", "run", "test")
    ]


@pytest.mark.parametrize(
    "package",
    [
        NO_TEST,
        {"name": "test"},
        {"scripts": {"pretest": "x", "test": " "}},
        {"scripts": ["test"]},
        {"scripts": {"test": 1}},
        ["test"],
        '{"scripts": {"test": ',
        "[" * 100_000,
    ],
)
def test_a_package_without_a_real_test_script_gives_none(package: object) -> None:
    assert stack_of({"package.json": package}) == Stack()


def test_cargo_tests_the_members_of_a_workspace_too() -> None:
    assert commands_that_test({"Cargo.toml": "[package]\nname = 'a'\n"}) == [("cargo", "test")]
    assert commands_that_test({"Cargo.toml": "[package]\n[workspace]\n"}) == [("cargo", "test", "--workspace")]
    assert commands_that_test({"Cargo.toml": "broken ["}) == [("cargo", "test")]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("pyproject.toml", "[tool.pytest.ini_options]\naddopts = '-q'\n"),
        ("pyproject.toml", "[tool.pytest]\n"),
        ("pyproject.toml", "[project]\ndependencies = ['Pytest>=8']\n"),
        ("pyproject.toml", "[project.optional-dependencies]\ndev = ['ruff', 'pytest-cov']\n"),
        ("pyproject.toml", "[dependency-groups]\ntest = [{include-group = 'x'}, 'pytest']\n"),
        ("pyproject.toml", "[tool.uv]\ndev-dependencies = ['pytest']\n"),
        ("pyproject.toml", "[tool.poetry.group.dev.dependencies]\npytest = '^8'\n"),
        ("pyproject.toml", "[tool.hatch.envs.default]\ndependencies = ['pytest']\n"),
        ("pytest.ini", ""),
        ("tox.ini", "[testenv]\ncommands = pytest {posargs}\n"),
        ("setup.cfg", "[tool:pytest]\n"),
        ("setup.cfg", "[options.extras_require]\ntest =\n    pytest\n"),
        ("setup.py", "setup(extras_require={'test': ['pytest']})\n"),
        ("requirements-dev.txt", "ruff\npytest==8.2\n"),
        ("requirements/dev.in", "pytest\n"),
        ("tests/unit/test_a.py", ""),
        ("test/a_test.py", ""),
        ("test_a.py", ""),
    ],
)
def test_pytest_is_known_by_any_of_its_traces(path: str, text: str) -> None:
    found = stack_of({path: text}).commands
    where = {"tests/unit/test_a.py": "tests/", "test/a_test.py": "test/"}.get(path, path)
    assert found == (DetectedCommand(PYTEST, "test", "", f"pytest ({where})"),)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("pyproject.toml", "[project]\nname = 'pytest'\ndependencies = ['pytester', 'ruff']\n"),
        ("pyproject.toml", "[tool.ruff]\n"),
        ("pyproject.toml", "[project"),
        ("requirements.txt", "# pytest\nruff\n"),
        ("tox.ini", "[flake8]\n"),
        ("tests/data/readme.txt", "pytest"),
        ("src/deep/test_a.py", ""),
    ],
)
def test_what_is_no_trace_of_pytest_gives_nothing(path: str, text: str) -> None:
    assert stack_of({path: text}) == Stack()


@pytest.mark.parametrize(
    ("lock", "runner"), [("uv.lock", "uv"), ("poetry.lock", "poetry"), ("pdm.lock", "pdm"), ("Pipfile", "pipenv")]
)
def test_pytest_runs_in_the_environment_that_the_lock_file_names(lock: str, runner: str) -> None:
    assert commands_that_test({"pytest.ini": "", lock: ""}) == [(runner, "run", "python", "-m", "pytest")]


@pytest.mark.parametrize(
    ("tree", "command"),
    [
        ({"go.mod": ""}, ("go", "test", "./...")),
        ({"pom.xml": ""}, ("mvn", "-B", "test")),
        ({"pom.xml": "", "mvnw": ""}, ("./mvnw", "-B", "test")),
        ({"build.gradle.kts": ""}, ("gradle", "--console=plain", "test")),
        ({"settings.gradle": "", "gradlew": ""}, ("./gradlew", "--console=plain", "test")),
        ({"App.csproj": "", "App.sln": ""}, ("dotnet", "test", "App.sln")),
        ({"App.fsproj": ""}, ("dotnet", "test", "App.fsproj")),
        ({"mix.exs": ""}, ("mix", "test")),
        ({"Gemfile": "", "spec/models/user_spec.rb": ""}, ("bundle", "exec", "rspec")),
        ({"Gemfile": "", ".rspec": ""}, ("bundle", "exec", "rspec")),
    ],
)
def test_each_language_has_its_command(tree: dict[str, str], command: tuple[str, ...]) -> None:
    assert commands_of(tree) == [("test", command)]


def test_a_gemfile_without_specs_gives_nothing() -> None:
    assert stack_of({"Gemfile": "", "spec/fixtures/a.rb": ""}) == Stack()


def test_every_language_at_the_root_gives_its_command() -> None:
    tree = {"Cargo.toml": "", "pyproject.toml": "[tool.pytest]\n", "package.json": NO_TEST, "web/package.json": NO_TEST}
    assert commands_that_test(tree) == [("cargo", "test"), PYTEST]


def test_a_monorepo_tests_each_outermost_project_where_it_lies() -> None:
    tree = {
        "pnpm-lock.yaml": "",
        "apps/web/package.json": {"scripts": {"test": "vitest", "lint": "eslint ."}},
        "apps/web/inner/package.json": {"scripts": {"test": "vitest"}},
        "backend/pyproject.toml": "[tool.pytest]\n",
        "backend/uv.lock": "",
        "backend/tool/go.mod": "",
        "server/go.mod": "",
        "a/b/c/go.mod": "",
    }
    assert commands_of(tree) == [
        ("test", ("pnpm", "run", "test"), "apps/web"),
        ("test", ("uv", "run", "python", "-m", "pytest"), "backend"),
        ("test", ("go", "test", "./..."), "server"),
        ("lint", ("pnpm", "run", "lint"), "apps/web"),
    ]


def test_a_root_that_tests_hides_the_sub_directories() -> None:
    tree = {"go.mod": "", "web/package.json": {"scripts": {"test": "jest", "lint": "eslint ."}}}
    assert commands_of(tree) == [("test", ("go", "test", "./..."))]


def test_a_root_lint_stays_when_the_sub_directories_test() -> None:
    tree = {"Makefile": "lint:\n\tx\n", "web/package.json": {"scripts": {"test": "jest", "lint": "eslint ."}}}
    assert commands_of(tree) == [("test", ("npm", "run", "test"), "web"), ("lint", ("make", "lint"))]


def test_dependencies_builds_and_hidden_directories_are_not_looked_into() -> None:
    manifest = {"scripts": {"test": "jest"}}
    places = ("node_modules/a", "vendor/a", "target/a", ".cache/a", "web/node_modules")
    assert stack_of({f"{place}/package.json": manifest for place in places}) == Stack()


NAMES = st.sampled_from(
    ["justfile", "Makefile", "package.json", "Cargo.toml", "pyproject.toml", "tests/test_a.py", "go.mod", "web/go.mod"]
)
TEXTS = st.one_of(st.text(max_size=60), st.sampled_from(["test:\n", "lint:\n", '{"scripts": {"test": "x"}}']))


@given(st.dictionaries(NAMES, TEXTS), st.randoms())
def test_any_text_in_any_order_gives_one_answer(tree: dict[str, str], random: object) -> None:
    paths = list(tree)
    random.shuffle(paths)  # type: ignore[attr-defined]
    assert detect(paths, tree.get) == detect(sorted(paths), tree.get)
    assert all(command.origin for command in detect(paths, tree.get).commands)
