"""The house rules that an import can break, read from the syntax tree; the checker itself is tested below."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "hew_loop"
MAX_LINES = 400

MAY_IMPORT = {
    "": set[str](),
    "__main__": {"cli"},
    "errors": set[str](),
    "crash": {"core"},
    "core": {"errors"},
    "process": {"errors"},
    "config": {"core", "errors"},
    "trackers": {"core", "errors", "process"},
    "runtimes": {"core", "errors"},
    "executors": {"core", "errors"},
    "repo": {"core", "errors", "process"},
    "reports": {"core", "errors"},
    "engine": {"core", "errors", "process", "repo", "trackers.base", "runtimes.base", "executors.base"},
    "launch": {"core", "errors", "config", "trackers", "repo", "engine", "wiring"},
    "wiring": {"core", "errors", "process", "config", "trackers", "runtimes", "executors", "repo", "reports", "engine"},
    "commands": {
        "core",
        "errors",
        "process",
        "config",
        "config_schema",
        "trackers",
        "repo",
        "reports",
        "runtimes.installed",
        "runtimes.logins",
        "engine",
        "wiring",
        "launch",
        "demo",
    },
    "cli": {"errors", "core"},
    "demo": set[str](),
}
"""Part -> the other parts of ours that it may import. `cli` reaches its commands through importlib alone."""

CORE_MAY_IMPORT = {
    *(
        "__future__",
        "abc",
        "bisect",
        "collections",
        "dataclasses",
        "datetime",
        "enum",
        "fnmatch",
        "functools",
        "graphlib",
    ),
    *("hashlib", "heapq", "itertools", "json", "math", "operator", "re", "statistics", "string", "textwrap", "types"),
    *("tomllib", "typing", "unicodedata", "pydantic", "pathlib", PACKAGE),
}
IMPURE_CALLS = {"open", "print", "input", "now", "utcnow", "today"}
PROCESS_MODULES = {"subprocess", "multiprocessing", "pty"}
PROCESS_CALLS = {
    *("fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen", "startfile", "run_process", "open_process"),
    *("create_subprocess_exec", "create_subprocess_shell", "ProcessPoolExecutor", "to_process"),
    *(f"{verb}{suffix}" for verb in ("exec", "spawn") for suffix in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
}
PROCESS_OWNERS = {"os", "asyncio", "anyio", "concurrent.futures"}
STARTS_PROCESSES = {f"{PACKAGE}.process", f"{PACKAGE}.process_guard"}


def violations(sources: dict[str, str]) -> list[str]:
    """Every broken rule as `module: what`; `sources` maps a module's dotted name to its text."""
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for name, text in sorted(sources.items()):
        tree = ast.parse(text)
        imported = sorted(set(_imports(tree, sources)))
        graph[name] = {target for target in imported if target in sources} - {name}
        problems = (
            *_table(name, imported),
            *_late_imports(name, tree),
            *_processes(name, tree),
            *(_impure(tree, imported) if _part(name) == "core" else ()),
            *_shape(tree, text),
        )
        found += [f"{name}: {problem}" for problem in problems]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("cycle: " + " -> ".join(error.args[1]))
    return found


def _imports(tree: ast.AST, sources: dict[str, str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or "")
                continue
            for alias in node.names:
                as_module = f"{node.module}.{alias.name}"
                yield as_module if as_module in sources else str(node.module)


def _part(module: str) -> str:
    """The room of a module; `process_guard` and `config_schema` are side rooms of `process` and `config`."""
    name = module.partition(".")[2].partition(".")[0]
    family = name.partition("_")[0]
    return family if family in {"process", "config"} else name


def _table(name: str, imported: list[str]) -> Iterator[str]:
    part = _part(name)
    if part not in MAY_IMPORT:
        yield f"the part {part} has no row in the import table"
        return
    for target in imported:
        if target.startswith("."):
            yield f"relative import of {target}"
        if target.split(".")[0] == "git" and part != "repo":
            yield "imports GitPython; only repo/ may"
        if target.split(".")[0] != PACKAGE or target == PACKAGE or _part(target) == part:
            continue
        inner = target.removeprefix(f"{PACKAGE}.")
        if _part(target) not in MAY_IMPORT[part] and inner not in MAY_IMPORT[part]:
            yield f"may not import {target}"


def _late_imports(name: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    yield f"imports inside {node.name}()"
        called = _called(node)
        if called in {"import_module", "__import__"} and name != f"{PACKAGE}.cli":
            yield f"calls {called}; only the lazy group of cli.py may"


def _processes(name: str, tree: ast.AST) -> Iterator[str]:
    if name in STARTS_PROCESSES:
        return
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    if alias.name.split(".")[0] in PROCESS_MODULES:
                        yield f"imports {alias.name}; only process.py starts processes"
            case ast.ImportFrom(module=str(module), names=names):
                taken = {alias.name for alias in names} & PROCESS_CALLS if module in PROCESS_OWNERS else set[str]()
                if module.split(".")[0] in PROCESS_MODULES or taken:
                    yield f"imports from {module}; only process.py starts processes"
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute) if owner in PROCESS_OWNERS:
                if attribute in PROCESS_CALLS:
                    yield f"uses {owner}.{attribute}; only process.py starts processes"
            case _:
                pass


def _impure(tree: ast.AST, imported: list[str]) -> Iterator[str]:
    for target in imported:
        if target.split(".")[0] not in CORE_MAY_IMPORT:
            yield f"imports {target}, which is not on the list of pure modules"
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            yield "is asynchronous"
        if isinstance(node, ast.ImportFrom) and node.module == "pathlib":
            for alias in node.names:
                if not alias.name.startswith("Pure"):
                    yield f"imports pathlib.{alias.name}, which touches the disk"
        if isinstance(node, ast.Import) and any(alias.name == "pathlib" for alias in node.names):
            yield "imports pathlib as a whole; take PurePosixPath"
        if (called := _called(node)) in IMPURE_CALLS:
            yield f"calls {called}()"


def _called(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name
        case _:
            return ""


def _shape(tree: ast.Module, text: str) -> Iterator[str]:
    if not ast.get_docstring(tree) or not text.startswith('"""'):
        yield "the first line is not a docstring"
    if (lines := text.count("\n")) > MAX_LINES:
        yield f"has {lines} lines; at most {MAX_LINES}"


def _sources() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in (ROOT / PACKAGE).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def test_the_house_keeps_its_rules() -> None:
    assert violations(_sources()) == []


def test_every_package_that_is_imported_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {entry.split(">")[0].lower() for entry in project["dependencies"]} - {"gitpython"} | {"git"}
    sources = _sources()
    imported = {target.split(".")[0] for text in sources.values() for target in _imports(ast.parse(text), sources)}
    assert imported - set(sys.stdlib_module_names) - {PACKAGE} <= declared


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("core.x", "import hew_loop.process", "may not import hew_loop.process"),
        ("core.x", "import os", "imports os, which is not on the list of pure modules"),
        ("core.x", "from pathlib import Path", "imports pathlib.Path, which touches the disk"),
        ("core.x", "NOW = datetime.now()", "calls now()"),
        ("core.x", "async def f(): pass", "is asynchronous"),
        ("trackers.x", "from hew_loop.repo.git import Git", "may not import hew_loop.repo.git"),
        ("runtimes.x", "from hew_loop.process import run", "may not import hew_loop.process"),
        ("reports.x", "import hew_loop.trackers.base", "may not import hew_loop.trackers.base"),
        ("engine.x", "from hew_loop.runtimes import claude", "may not import hew_loop.runtimes.claude"),
        ("engine.x", "import hew_loop.config", "may not import hew_loop.config"),
        ("commands.x", "import hew_loop.runtimes.claude", "may not import hew_loop.runtimes.claude"),
        ("cli", "import hew_loop.commands.run", "may not import hew_loop.commands.run"),
        ("attic", "", "the part attic has no row in the import table"),
        ("core.x", "from . import task", "relative import of ."),
        ("engine.x", "import git", "imports GitPython; only repo/ may"),
        ("repo.x", "def f():\n    import json", "imports inside f()"),
        ("wiring", "m = importlib.import_module('x')", "calls import_module; only the lazy group of cli.py may"),
        ("repo.x", "import subprocess", "imports subprocess; only process.py starts processes"),
        (
            "repo.x",
            "from asyncio import create_subprocess_exec",
            "imports from asyncio; only process.py starts processes",
        ),
        ("engine.x", "x = os.fork()", "uses os.fork; only process.py starts processes"),
        ("engine.x", "x = anyio.open_process(['a'])", "uses anyio.open_process; only process.py starts processes"),
        ("engine.x", "\n" * (MAX_LINES + 1), f"has {MAX_LINES + 3} lines; at most {MAX_LINES}"),
    ],
)
def test_a_planted_violation_is_found(module: str, line: str, complaint: str) -> None:
    name = f"{PACKAGE}.{module}"
    sources = {name: f'"""One idea."""\n{line}\n', f"{PACKAGE}.runtimes.claude": '"""Claude."""\n'}
    assert f"{name}: {complaint}" in violations(sources)


def test_a_module_without_a_docstring_on_its_first_line_is_found() -> None:
    assert violations({f"{PACKAGE}.core.x": "import re\n"}) == [f"{PACKAGE}.core.x: the first line is not a docstring"]


def test_a_cycle_between_modules_is_found() -> None:
    sources = {
        f"{PACKAGE}.core.a": f'"""A."""\nfrom {PACKAGE}.core import b\n',
        f"{PACKAGE}.core.b": f'"""B."""\nfrom {PACKAGE}.core.a import thing\n',
    }
    (only,) = violations(sources)
    assert only.startswith("cycle: ")


def test_what_the_table_allows_is_not_complained_about() -> None:
    sources = {
        f"{PACKAGE}.engine.x": f'"""X."""\nimport {PACKAGE}.runtimes.base\nfrom {PACKAGE}.core import task\n',
        f"{PACKAGE}.runtimes.base": '"""The seam."""\n',
        f"{PACKAGE}.core.task": '"""A task."""\nfrom pathlib import PurePosixPath\n',
        f"{PACKAGE}.process": '"""The door."""\nimport subprocess\n',
        f"{PACKAGE}.repo.git": '"""Git."""\nimport git\n',
    }
    assert violations(sources) == []
