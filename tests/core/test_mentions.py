"""Paths in a task's text: what is one, what only looks so, and that a hostile text costs no more than a long one."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hew_loop.core.mentions import MAX_PATH_CHARS, MAX_PATHS, mentioned


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("Change src/a.py, then ./docs/x.md.", ("docs/x.md", "src/a.py")),
        ("See a.py:12 and lib/b.rs:3:4", ("a.py", "lib/b.rs")),
        ("`bin/run` \"lib/b.rs\" 'web/app.ts' <c/d.h>", ("bin/run", "c/d.h", "lib/b.rs", "web/app.ts")),
        ("[here](docs/api.md#top), [there](./b.md)", ("b.md", "docs/api.md")),
        ("**src/z.py** and *src/y.py*: both", ("src/y.py", "src/z.py")),
        ("everything in src/core/ and docs/.", ("docs/", "src/core/")),
        ("src/./a//b.py", ("src/a/b.py",)),
        ("src/**/*.py or src/{a,b}.py", ("src/",)),
        ("--config=conf/dev.toml", ("conf/dev.toml",)),
        (".gitignore .ci/run .github/workflows/ci.yml", (".ci/run", ".github/workflows/ci.yml", ".gitignore")),
        ("src/Makefile go.mod uv.lock", ("go.mod", "src/Makefile", "uv.lock")),
        ("straße/größe.py 文档/说明.md", ("straße/größe.py", "文档/说明.md")),
        ("icons/logo@2x.png", ("icons/logo@2x.png",)),
        ("src/a.py src/a.py ./src/a.py", ("src/a.py",)),
    ],
)
def test_a_path_is_found_wherever_it_stands(text: str, paths: tuple[str, ...]) -> None:
    assert mentioned(text) == paths


@pytest.mark.parametrize(
    "text",
    [
        "",
        "One file, nothing else.",
        "and/or, read/write; he/she, TCP/IP n/a 24/7 1/2",
        "on 2026/01/31, 2026-01-31 or 31.01.2026",
        "version 1.2.3, v1.0.5, 3.11, HTTP/1.1, 2.0rc1",
        "e.g. this, i.e. that, etc.So on, and/or.Then",
        "https://example.org/src/a.py http://u:p@host:80/x/y.py file:///etc/x.py (ftp://h/z.c)",
        "www.example.org/a.html github.com/owner/name/a.py git@github.com:owner/name.git",
        "mail ann@example.py or a@b.md",
        "/etc/passwd ~/notes.md C:/x/y.py C:\\x\\y.py //host/share.py",
        "../x.py a/../b.py .. ... src/.. a...b main..dev",
        "os.path, self.lock, response.json() and Node.js",
        "$HOME/x.py %s.py *_test.py .py *.md",
        "@/components/x.tsx @scope/name",
        "w/ tests, a / b",
    ],
)
def test_what_only_looks_like_a_path_is_none(text: str) -> None:
    assert mentioned(text) == ()


def test_texts_are_taken_together() -> None:
    assert mentioned("b.py", "", "src/a.py and b.py") == ("b.py", "src/a.py")


def test_the_first_fifty_paths_are_kept_and_none_that_is_too_long() -> None:
    assert len(mentioned(",".join(f"src/f{i}.py" for i in range(200)))) == MAX_PATHS
    longest = "d/" * 148 + "a.py"
    assert len(longest) == MAX_PATH_CHARS
    assert mentioned(longest, f"d{longest}") == (longest,)


@given(st.text(alphabet=st.sampled_from("ab1./\\`*@~:-_ \n[](){}<>\"'$%é\x00\ud800"), max_size=300))
def test_whatever_the_text_every_path_is_relative_normal_and_stays_inside(text: str) -> None:
    found = mentioned(text)
    assert list(found) == sorted(set(found))
    for path in found:
        parts = path.removesuffix("/").split("/")
        assert not {"", ".", ".."} & set(parts)
        assert not path.startswith(("/", "~", "-"))
        assert path.encode()
        assert path.isprintable()


@given(st.lists(st.sampled_from(["src/a.py", "b.md", "docs/", "x/y/z.ts"]), unique=True), st.sampled_from(" ,;\n|\"'`"))
def test_a_path_is_found_whatever_stands_between(paths: list[str], between: str) -> None:
    assert mentioned(f"{between} ".join(paths)) == tuple(sorted(paths))


@pytest.mark.parametrize("piece", ["a", "a/", "a.", ".", "/", "a://", "a.b,", "`", "[](", "x-", "@", "../", "a/b.p,"])
def test_a_text_of_one_pattern_takes_time_in_proportion_to_its_length(piece: str) -> None:
    def cpu_s(length: int) -> float:
        began = time.process_time()
        mentioned(piece * (length // len(piece)) + "/")
        return time.process_time() - began

    assert cpu_s(400_000) < 40 * max(cpu_s(40_000), 0.01)
