"""What reaches an agent: its prompt, part by part, and its model."""

from __future__ import annotations

from pathlib import Path

from hew_loop.core.skill import RULES, SKILL
from tests.support.project import Project

TOLD = """\
[loop.model]
default = "by-default"
[loop.model.by_priority]
P0 = "by-priority"
[loop.model.by_type]
bug = "by-type"
[runtime.told]
command = ["sh", "-c", 'echo "$1" > "$HEW_TASK_ID.txt"', "sh", "{model}"]
"""


def test_a_prompt_holds_the_task_and_what_it_is_built_on_and_nothing_of_others(tmp_path: Path) -> None:
    project = Project(
        tmp_path,
        config='[loop.prompt]\nfile = "docs/how.md"\n[loop.gate]\ncommands = ["test ! -f bad"]',
        files={"docs/how.md": "Work as we do.\n", ".hew/PRIME.md": "Run make check.\n"},
    )
    say = """printf '```loop_result\\n{"status": "done", "summary": "%s"}\\n```\\n' """
    lib = project.add("Add the library", script=f"rm bad; echo lib > lib.py; {say} 'lib() is there.'")
    project.script(lib, "touch half.py bad", attempt=1)
    uses = project.add("Use the library", "-d", "Call lib().", "--dep", lib)
    other = project.add("Something else", "-d", "Of no concern to them.", script=f"echo > other; {say} Unrelated.")
    for name in ("docs/how.md", ".hew/PRIME.md"):  # what counts is the base commit
        (project.path / name).write_text("Changed since.\n")
    assert project.run("--jobs", "2").code == 0

    first, *rest = project.iterations()
    assert {(i["prompt_prefix_hash"], i["prompt_tokens"]["skill"], i["prompt_tokens"]["primer"]) for i in rest} == {
        (first["prompt_prefix_hash"], first["prompt_tokens"]["skill"], first["prompt_tokens"]["primer"])
    }
    prompts = {
        (i["task_id"], i["attempt"]): (project.folder() / f"iter-{i['number']:03d}" / "prompt.md").read_text()
        for i in (first, *rest)
    }
    parts = {(i["task_id"], i["attempt"]): list(i["prompt_tokens"]) for i in (first, *rest)}
    assert parts == {
        (lib, 1): ["skill", "primer", "task", "end"],
        (lib, 2): ["skill", "primer", "task", "evidence", "end"],
        (uses, 1): ["skill", "primer", "task", "dependencies", "end"],
        (other, 1): ["skill", "primer", "task", "end"],
    }
    for text in prompts.values():
        assert text.startswith(f"# One task of a backlog\n\nWork as we do.\n\n{RULES}")
        assert SKILL not in text
        assert "\nRun make check.\n" in text
    assert f"\n{lib}: Add the library\nlib() is there.\nfiles: bad, half.py, lib.py\n" in prompts[uses, 1]
    of_others = ("Something else", "Of no concern", "Unrelated.", other)
    assert not [word for word in of_others for key, text in prompts.items() if key[0] != other and word in text]
    assert not [word for word in (lib, uses, "library") if word in prompts[other, 1]]


def test_a_prompt_file_that_the_base_does_not_hold_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    project = Project(tmp_path, config='[loop.prompt]\nfile = "docs/how.md"')
    task = project.add("A task")
    (project.path / "docs").mkdir()
    (project.path / "docs" / "how.md").write_text("Not committed.\n")
    for args in ((), ("--dry-run",)):
        done = project.run(*args)
        assert (done.code, done.out) == (2, "")
        assert "loop.prompt.file = 'docs/how.md': there is no such file in the base commit" in done.err
    assert (project.statuses()[task], (project.path / ".hew").exists()) == ("open", False)


def test_the_model_of_each_task_reaches_the_agent(tmp_path: Path) -> None:
    project = Project(tmp_path, config=TOLD)
    tag = ("-d", "Do it. <!-- hew:model=by-tag -->")
    wanted = {
        project.add("Tagged", *tag, "-l", "model:by-label", "-p", "0"): "by-tag",
        project.add("Labelled", "-l", "model:by-label", "-p", "0"): "by-label",
        project.add("Urgent", "-p", "0", "-t", "bug"): "by-priority",
        project.add("A bug", "-t", "bug"): "by-type",
        project.add("A task"): "by-default",
    }
    assert project.run("--runtime", "told", "--jobs", "5").code == 0
    assert {t: (project.path / f"{t}.txt").read_text().strip() for t in wanted} == wanted
    assert {i["task_id"]: i["model"] for i in project.iterations()} == wanted
    assert {m["model"] for m in project.summary()["models"]} == set(wanted.values())
    last = project.add("Tagged too", *tag)
    assert project.run("--runtime", "told", "--model", "forced").code == 0
    assert (project.path / f"{last}.txt").read_text() == "forced\n"
