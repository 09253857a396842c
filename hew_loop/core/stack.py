"""Which commands test and lint a repository, read from the files that it holds (product.md §5, "Gate and verify")."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, cast

from hew_loop.core.policy import Command, Kind, PlannedCommand

Read = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class DetectedCommand(PlannedCommand):
    origin: str = ""
    """For people: `justfile recipe test`, `web/package.json script lint`, `pytest (tests/)`."""

    @property
    def planned(self) -> PlannedCommand:
        """For the policy: a value that is equal to itself after a journey through the journal."""
        return PlannedCommand(self.command, self.kind, self.directory)


@dataclass(frozen=True, slots=True)
class Stack:
    commands: tuple[DetectedCommand, ...] = ()

    def of_kind(self, kind: Kind) -> tuple[DetectedCommand, ...]:
        return tuple(command for command in self.commands if command.kind == kind)


def detect(files: Iterable[str], read: Read) -> Stack:
    """The commands of the tree whose files are given, relative and with `/`; tests first.

    `read` answers with a file's text, or None. Give it the tree that will be tested, not the user's checkout.
    A justfile or Makefile speaks for the whole repository and stands alone, for each kind by itself; else each language
    at the root gives its command; where the root tests nothing, its sub-directories with a manifest do, the outermost
    ones, each run where it lies.
    """
    tree = _Tree(files, read)
    tests, lints = _test_commands(tree, ""), _lint_commands(tree, "")
    if not tests:
        places = tree.outermost_manifests()
        tests = [command for place in places for command in _test_commands(tree, place)]
        lints = lints or [command for place in places for command in _lint_commands(tree, place)]
    return Stack((*tests, *lints))


_NOT_LOOKED_INTO = frozenset({"node_modules", "vendor", "target"})
_MANIFEST_DEPTH = 2
_PYTEST_FILES = ("pyproject.toml", "pytest.ini", "tox.ini", "setup.cfg", "setup.py")
_GRADLE_FILES = ("build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts")
_JUSTFILES = ("justfile", ".justfile", "Justfile")
_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")  # in make's own order
_OTHER_MANIFESTS = ("package.json", "Cargo.toml", "go.mod", "pom.xml", "mix.exs", "Gemfile")
_MANIFESTS = frozenset((*_JUSTFILES, *_MAKEFILES, *_PYTEST_FILES, *_GRADLE_FILES, *_OTHER_MANIFESTS))
_DOTNET_SUFFIXES = frozenset({".sln", ".slnx", ".csproj", ".fsproj", ".vbproj"})
_TEST_FILE = re.compile(r"test_[^/]*\.py|[^/]*_test\.py")
_REQUIREMENTS = re.compile(r"requirements/[^/]+\.(txt|in)|[^/]*requirements[^/]*\.(txt|in)|setup\.py")
_REQUIRED_PYTEST = re.compile(r"(?im)^[^#\n]*\bpytest\b")
_PLACEHOLDER = "no test specified"


class _Tree:
    """The files that count, and their texts."""

    def __init__(self, files: Iterable[str], read: Read) -> None:
        self.files = tuple(sorted(path for path in files if _is_looked_at(path)))
        self._set = frozenset(self.files)
        self._read = read

    def first(self, directory: str, names: Iterable[str]) -> str | None:
        return next((path for name in names if (path := _join(directory, name)) in self._set), None)

    def has(self, directory: str, name: str) -> bool:
        return self.first(directory, (name,)) is not None

    def text(self, path: str | None) -> str:
        return (self._read(path) or "") if path is not None and path in self._set else ""

    def toml(self, path: str) -> dict[str, Any]:
        try:
            return tomllib.loads(self.text(path))
        except tomllib.TOMLDecodeError:
            return {}

    def below(self, directory: str) -> Iterator[str]:
        """Paths below `directory`, relative to it."""
        prefix = f"{directory}/" if directory else ""
        return (path.removeprefix(prefix) for path in self.files if path.startswith(prefix))

    def outermost_manifests(self) -> tuple[str, ...]:
        """Sub-directories that hold a manifest and lie in no other such one: an inner one is its outer one's member."""
        places = {str(PurePosixPath(path).parent) for path in self.files if _is_manifest(path)} - {"."}
        near = sorted(place for place in places if place.count("/") < _MANIFEST_DEPTH)
        return tuple(p for p in near if not any(p.startswith(f"{outer}/") for outer in near))


def _is_looked_at(path: str) -> bool:
    directories = path.split("/")[:-1]
    return not any(name in _NOT_LOOKED_INTO or name.startswith(".") for name in directories)


def _is_manifest(path: str) -> bool:
    name = PurePosixPath(path)
    return name.name in _MANIFESTS or name.suffix in _DOTNET_SUFFIXES


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _test_commands(tree: _Tree, directory: str) -> list[DetectedCommand]:
    whole = _recipe(tree, directory, "test")
    if whole is not None:
        return [whole]
    found = (stack(tree, directory) for stack in _STACKS)
    return [command for command in found if command is not None]


def _lint_commands(tree: _Tree, directory: str) -> list[DetectedCommand]:
    found = _recipe(tree, directory, "lint") or _package_script(tree, directory, "lint")
    return [found] if found is not None else []


def _recipe(tree: _Tree, directory: str, kind: Kind) -> DetectedCommand | None:
    """A justfile's recipe or, where there is none for this kind, a Makefile's target."""
    justfile = tree.first(directory, _JUSTFILES)
    if kind in _just_recipes(tree.text(justfile)):
        return DetectedCommand(("just", kind), kind, directory, f"{justfile} recipe {kind}")
    makefile = tree.first(directory, _MAKEFILES)
    if kind in _make_targets(tree.text(makefile)):
        return DetectedCommand(("make", kind), kind, directory, f"{makefile} target {kind}")
    return None


def _just_recipes(justfile: str) -> Iterator[str]:
    """Names that `just NAME` runs with nothing more on the command line."""
    for line in justfile.splitlines():
        alias = re.match(r"alias\s+([\w-]+)\s*:=", line)
        if alias:
            yield alias[1]
            continue
        # Texts first: a default value may hold a colon, a `#` or an `=`.
        plain = re.sub(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|`[^`]*`", "_", line).partition("#")[0]
        header = re.match(r"@?([A-Za-z_][\w-]*)(\s[^:]*)?:(?!=)", re.sub(r"\([^()]*\)", "_", plain))
        if header and all(p.startswith("*") or "=" in p for p in re.sub(r"\s*=\s*", "=", header[2] or "").split()):
            yield header[1]


def _make_targets(makefile: str) -> Iterator[str]:
    for line in makefile.replace("\\\n", " ").splitlines():
        rule = re.match(r"([^\s:=#][^:=#]*?)\s*&?::?(?![:=])(.*)", line)
        # `test: FLAGS = -v` gives a variable to a target and makes none.
        if rule and not re.match(r"\s*((private|export|override)\s+)*[\w.-]+\s*(:{1,3}|[+?!])?=", rule[2]):
            yield from rule[1].split()


def _package_script(tree: _Tree, directory: str, kind: Kind) -> DetectedCommand | None:
    manifest = _join(directory, "package.json")
    package = _json_object(tree.text(manifest))
    script = _table(package.get("scripts")).get(kind)
    if not isinstance(script, str) or not script.strip() or _PLACEHOLDER in script:
        return None
    # `run` also for test: `bun test` is bun's own runner and not the script.
    command = (_package_manager(tree, directory, package), "run", kind)
    return DetectedCommand(command, kind, directory, f"{manifest} script {kind}")


def _package_manager(tree: _Tree, directory: str, package: dict[str, Any]) -> str:
    """By the lock file here, else the one at the root (a workspace has only that), else the `packageManager` field."""
    for place in dict.fromkeys((directory, "")):
        for name, lock in _LOCK_FILES:
            if tree.has(place, lock):
                return name
    named = str(package.get("packageManager", "")).partition("@")[0]
    return named if named in {name for name, _ in _LOCK_FILES} else "npm"


_LOCK_FILES = (
    ("npm", "package-lock.json"),
    ("npm", "npm-shrinkwrap.json"),
    ("pnpm", "pnpm-lock.yaml"),
    ("yarn", "yarn.lock"),
    ("bun", "bun.lock"),
    ("bun", "bun.lockb"),
)


def _npm(tree: _Tree, directory: str) -> DetectedCommand | None:
    return _package_script(tree, directory, "test")


def _cargo(tree: _Tree, directory: str) -> DetectedCommand | None:
    manifest = _join(directory, "Cargo.toml")
    if not tree.has(directory, "Cargo.toml"):
        return None
    # A root package with members tests only itself unless told otherwise.
    whole = ("--workspace",) if "workspace" in tree.toml(manifest) else ()
    return DetectedCommand(("cargo", "test", *whole), "test", directory, manifest)


def _pytest(tree: _Tree, directory: str) -> DetectedCommand | None:
    evidence = _pytest_evidence(tree, directory)
    if evidence is None:
        return None
    return DetectedCommand(_pytest_command(tree, directory), "test", directory, f"pytest ({evidence})")


def _pytest_command(tree: _Tree, directory: str) -> Command:
    """Without `-q`: together with a `-q` of the project's own settings it hides that nothing was collected."""
    for place in dict.fromkeys((directory, "")):
        for lock, runner in (("uv.lock", "uv"), ("poetry.lock", "poetry"), ("pdm.lock", "pdm"), ("Pipfile", "pipenv")):
            if tree.has(place, lock):
                return (runner, "run", "python", "-m", "pytest")
    # `-m` puts the worktree first on the path, so that the candidate is tested and not an installed copy. Whether the
    # worktree has a `.venv` (from `[worktree] setup` or `link`) is known only where the command runs: git ignores it.
    return 'PATH="$PWD/.venv/bin:$PATH" python3 -m pytest'


def _pytest_evidence(tree: _Tree, directory: str) -> str | None:
    pyproject = _join(directory, "pyproject.toml")
    if _wants_pytest(tree.toml(pyproject)):
        return pyproject
    ini = tree.first(directory, ("pytest.ini", ".pytest.ini"))
    if ini is not None:
        return ini
    for name, mark in (("tox.ini", r"\[pytest\]|\bpytest\b"), ("setup.cfg", r"\[tool:pytest\]|^[^#\n]*\bpytest\b")):
        if re.search(mark, tree.text(_join(directory, name)), re.MULTILINE):
            return _join(directory, name)
    for path in tree.below(directory):
        if _REQUIREMENTS.fullmatch(path) and _REQUIRED_PYTEST.search(tree.text(_join(directory, path))):
            return _join(directory, path)
    for path in tree.below(directory):
        folder, _, name = path.rpartition("/")
        if folder.split("/")[0] in ("", "tests", "test") and _TEST_FILE.fullmatch(name):
            return _join(directory, f"{folder.split('/')[0]}/" if folder else name)
    return None


def _wants_pytest(pyproject: dict[str, Any]) -> bool:
    """Configured under `[tool.pytest…]`, or named by any of the places where projects and their tools list needs."""
    tool, project = _table(pyproject.get("tool")), _table(pyproject.get("project"))
    if "pytest" in tool:
        return True
    poetry, hatch = _table(tool.get("poetry")), _table(tool.get("hatch"))
    needs: list[object] = [
        project.get("dependencies"),
        project.get("optional-dependencies"),
        pyproject.get("dependency-groups"),
        _table(tool.get("uv")).get("dev-dependencies"),
        _table(tool.get("pdm")).get("dev-dependencies"),
        poetry.get("dependencies"),
        poetry.get("dev-dependencies"),
        poetry.get("group"),
        hatch.get("envs"),
    ]
    return any(re.match(r"pytest(?![\w.])", word, re.IGNORECASE) for need in needs for word in _words(need))


def _go(tree: _Tree, directory: str) -> DetectedCommand | None:
    if not tree.has(directory, "go.mod"):
        return None
    return DetectedCommand(("go", "test", "./..."), "test", directory, _join(directory, "go.mod"))


def _maven(tree: _Tree, directory: str) -> DetectedCommand | None:
    if not tree.has(directory, "pom.xml"):
        return None
    program = "./mvnw" if tree.has(directory, "mvnw") else "mvn"
    return DetectedCommand((program, "-B", "test"), "test", directory, _join(directory, "pom.xml"))


def _gradle(tree: _Tree, directory: str) -> DetectedCommand | None:
    manifest = tree.first(directory, _GRADLE_FILES)
    if manifest is None:
        return None
    program = "./gradlew" if tree.has(directory, "gradlew") else "gradle"
    return DetectedCommand((program, "--console=plain", "test"), "test", directory, manifest)


def _dotnet(tree: _Tree, directory: str) -> DetectedCommand | None:
    here = [path for path in tree.below(directory) if "/" not in path]
    solutions = [path for path in here if PurePosixPath(path).suffix in (".sln", ".slnx")]
    projects = solutions or [path for path in here if PurePosixPath(path).suffix in _DOTNET_SUFFIXES]
    if not projects:
        return None
    # Named, since dotnet refuses to choose where a folder holds both a solution and a project.
    return DetectedCommand(("dotnet", "test", projects[0]), "test", directory, _join(directory, projects[0]))


def _mix(tree: _Tree, directory: str) -> DetectedCommand | None:
    if not tree.has(directory, "mix.exs"):
        return None
    return DetectedCommand(("mix", "test"), "test", directory, _join(directory, "mix.exs"))


def _rspec(tree: _Tree, directory: str) -> DetectedCommand | None:
    specs = any(path.startswith("spec/") and path.endswith("_spec.rb") for path in tree.below(directory))
    if not tree.has(directory, "Gemfile") or not (specs or tree.has(directory, ".rspec")):
        return None
    return DetectedCommand(("bundle", "exec", "rspec"), "test", directory, _join(directory, "Gemfile"))


_STACKS = (_npm, _cargo, _pytest, _go, _maven, _gradle, _dotnet, _mix, _rspec)


def _json_object(text: str) -> dict[str, Any]:
    try:
        return _table(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _table(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _words(value: object) -> Iterator[str]:
    """Every string in it, keys too: poetry names what it needs in keys, the others in lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            yield from _words(item)
    elif isinstance(value, dict):
        for key, item in cast("dict[str, object]", value).items():
            yield key
            yield from _words(item)
