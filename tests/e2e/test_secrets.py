"""A key that an agent prints stands in no file of the run (P13)."""

from __future__ import annotations

from pathlib import Path

from tests.support.project import Project

KEY, TOKEN = "sk-live-0123456789abcdef", "tok-from-the-configuration"


def test_secrets_stand_in_no_file_of_the_run(tmp_path: Path) -> None:
    project = Project(tmp_path, config=f'[worktree]\nenv = {{ DEPLOY_TOKEN = "{TOKEN}" }}\n')
    task = project.add("Leaks")
    project.script(
        task,
        'echo "my key is $SERVICE_API_KEY and $DEPLOY_TOKEN"; echo "$SERVICE_API_KEY" >&2\n'
        f"test \"$DEPLOY_TOKEN\" = '{TOKEN}' || exit 9\n"
        'printf \'```loop_result\\n{"status": "failed", "summary": "key %s"}\\n```\\n\' "$SERVICE_API_KEY"\n',
    )
    done = project.run("--attempts", "1", "--gate", 'echo "$SERVICE_API_KEY"', SERVICE_API_KEY=KEY)
    assert done.code == 1
    files = [p for p in (project.path / ".hew").rglob("*") if p.is_file() and not p.is_symlink()]
    leaking = [str(p.relative_to(project.path)) for p in files if {KEY, TOKEN} & set_of_secrets(p)]
    assert (leaking, KEY in done.out + done.err) == ([], False)
    assert "my key is ********" in (project.folder() / "iter-001" / "output.log").read_text()
    assert KEY not in (project.path / ".beads" / "issues.jsonl").read_text()


def set_of_secrets(path: Path) -> set[str]:
    text = path.read_text(errors="replace")
    return {secret for secret in (KEY, TOKEN) if secret in text}
