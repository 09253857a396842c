"""Which files a text names: paths in prose, backticks, quotes and markdown links, and nothing that only looks so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

MAX_PATHS: Final = 50
MAX_PATH_CHARS: Final = 300

# An address is taken whole, so that no part of it is a path. Both runs are possessive: a text is read once.
_RUN = re.compile(r"[\w.+\-]++://\S*|(?P<before>[`*$%\\]?)(?P<path>[\w.@+~/\-]++)(?P<after>[(*]?)")
_DOT = re.compile(r"\.\w")
_HOST = re.compile(r"www\..*|.*\.(?:com|org|net|io|dev|ai|co)")
_KNOWN_EXTENSIONS: Final = """
adoc astro bash bat bzl c cc cfg cjs cljs cmake conf cpp cs css csv cts cxx dart editorconfig erb erl exs fish gif go
gql gradle graphql groovy h hbs hcl hpp hs htm html ico ini ipynb java jinja jinja2 jpeg jpg js json json5 jsonc jsonl
jsx kt kts less lua markdown md mdx mjs mk ml mts nim nix pdf php plist png proto ps1 py pyi pyx rb rs rst sass sbt
scala scss sh sql svelte svg swift tex tf tfvars tmpl toml tpl ts tsv tsx txt vue webp xml xsd yaml yml zig zsh
"""
_KNOWN_NAMES: Final = """
.dockerignore .env .eslintrc .gitattributes .gitignore .gitmodules .npmrc .prettierrc .python-version Cargo.lock
Dockerfile Gemfile Gemfile.lock Jenkinsfile Justfile LICENSE Makefile Pipfile.lock Procfile README Rakefile
composer.lock flake.lock go.mod go.sum justfile poetry.lock py.typed uv.lock yarn.lock
"""
_EXTENSIONS = frozenset(_KNOWN_EXTENSIONS.split())
"""Of a name without a directory: `os.path`, `e.g` and `example.com` are none. Behind a directory others do too."""
_NAMES = frozenset(_KNOWN_NAMES.split())
_PRODUCTS = frozenset(f"{name}.js" for name in ("d3", "ember", "express", "next", "node", "nuxt", "react", "vue"))


def mentioned(*texts: str) -> tuple[str, ...]:
    """Relative paths as git writes them, sorted; a directory ends with a slash. The first 50 of the texts.

    Taken on sight, whether they exist or not. What leads out of the repository is left out.
    """
    found: set[str] = set()
    for text in texts:
        # Of a whole backlog: most texts end here, and of the others nearly every word is passed over.
        if "/" not in text and _DOT.search(text) is None:
            continue
        for word in [w for w in text.split() if "/" in w or ("." in w and "." in w[:-1])]:
            for path in _paths(word):
                found.add(path)
                if len(found) == MAX_PATHS:
                    return tuple(sorted(found))
    return tuple(sorted(found))


def _paths(word: str) -> Iterator[str]:
    for run in _RUN.finditer(word):
        before, path, after = run.groups()
        if path and ("/" in path or "." in path) and (found := _path_of(path, before, after)):
            yield found


def _path_of(run: str, before: str, after: str) -> str | None:
    """The path that a run of path characters is, given the characters beside it."""
    if before in ("$", "%", "\\") or (before == "*" and after != "*"):
        return None  # the rest of a variable, of a format, of a wildcard
    name = run.removesuffix("...").removesuffix(".")
    parts = [part for part in name.split("/") if part and part != "."]
    if not parts or ".." in name or run.endswith("/..") or name[0] in "/~-+" or "@" in parts[0]:
        return None
    path = "/".join(parts) + ("/" if name.endswith(("/", "/.")) else "")
    if len(path) > MAX_PATH_CHARS or not any(c.isalpha() for c in path) or _HOST.fullmatch(parts[0]):
        return None
    is_quoted = before == "`"
    if path.endswith("/"):
        is_path = len(path) > 2 or is_quoted  # "w/ tests" names no directory
    elif len(parts) > 1:
        is_path = is_quoted or parts[0].startswith(".") or parts[-1] in _NAMES or _has_extension(parts[-1])
    else:
        is_path = after != "(" and (path in _NAMES or _is_file_name(path))
    return path if is_path else None


def _has_extension(name: str) -> bool:
    """`notes.md` and `.bashrc`, but not the end of `http/1.1`, of `owner/repo.git` or of `this/that.Then`."""
    end = name.rpartition(".")[2]
    is_end = end != name and len(end) <= 12 and end.isalnum() and end[0].isalpha()
    return is_end and end != "git" and (end.islower() or end.lower() in _EXTENSIONS)


def _is_file_name(name: str) -> bool:
    stem, _, extension = name.rpartition(".")
    return extension.lower() in _EXTENSIONS and any(map(str.isalpha, stem)) and name.lower() not in _PRODUCTS
