"""An `aider` that does what the recorded one did: commits by itself, leaves files of its own, prints text alone."""

from __future__ import annotations

from pathlib import Path

from tests.support.project import Project

AIDER = """\
#!/bin/sh
while [ "$1" != --message-file ]; do shift; done
! grep -q '```loop_result' "$2" && grep -q '^<loop_result>' "$2" && grep -q '^<next_iteration>' "$2" || exit 9
mkdir -p .aider.tags.cache.v4
echo x | tee .aider.tags.cache.v4/cache.db .aider.input.history > .aider.chat.history.md
printf 'Aider v0.86.2\\nModel: openai/m with diff edit format\\nGit repo: .git with 1 files\\n\\n'
. "$PLAN/$HEW_TASK_ID"
"""
EDITS = """\
printf 'I will.\\n\\na.txt\\n```\\n<<<<<<< SEARCH\\n=======\\nhi\\n>>>>>>> REPLACE\\n```\\n\\nAdded a.txt.\\n'
printf '<loop_result>{"status": "done", "summary": "It greets."}</loop_result>\\n'
printf '<next_iteration>%s</next_iteration>\\n\\nTokens: 2.8k sent, 44 received.\\n' "$(cat "$PLAN/next")"
: > a.txt; git add a.txt; git commit -qm 'Before the edit'; echo hi > a.txt; git commit -qam 'Add a greeting'
echo 'Applied edit to a.txt'
"""
FINDS_NOTHING = """\
printf '<loop_result>{"status": "no_change", "summary": "It is there."}</loop_result>\\n\\n'
printf 'Tokens: 500 sent, 9 received.\\n'
"""


def test_aider_is_asked_for_tags_and_what_it_leaves_for_itself_is_not_collected(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "aider").write_text(AIDER)
    (tmp_path / "aider").chmod(0o755)
    edits = project.add("Greet", "-p", "1", script=EDITS)
    nothing = project.add("Greet again", script=FINDS_NOTHING)
    (project.plan / "next").write_text(nothing)

    done = project.run("--runtime", "aider", "--no-gate", HEW_LOOP_AIDER_BIN=str(tmp_path / "aider"))

    assert (done.code, project.statuses()) == (0, {edits: "closed", nothing: "closed"}), done.err
    assert {path for path in project.landed_files() if "aider" in path or path == "a.txt"} == {"a.txt"}
    first, second = project.iterations()
    assert (first["summary"], first["next_iteration"], first["cost"]["input"]) == ("It greets.", [nothing], 2800)
    assert (second["outcome"], second["summary"], second["cost"]["output"]) == ("closed", "It is there.", 9)
