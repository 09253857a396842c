# What a contributor does here; `just --list` shows this.

python := ".venv/bin/python"

# Make .venv with everything for development
setup:
    python3 -m venv .venv
    {{ python }} -m pip install -q -e '.[dev]'

# Rewrite the code to the house format
fmt:
    {{ python }} -m ruff format .
    {{ python }} -m ruff check --fix .

lint:
    {{ python }} -m ruff format --check .
    {{ python }} -m ruff check .

types:
    {{ python }} -m pyright

# All tests, or those named: just test tests/core
test *args:
    {{ python }} -m pytest -q {{ args }}

# Only the tests that go through the installed command, the slow ones too
e2e *args:
    {{ python }} -m pytest -q -m "" tests/e2e {{ args }}

# What a plain test run leaves out: hostile agents, a kill at every line of the journal
slow *args:
    {{ python }} -m pytest -q -m slow {{ args }}

# What must hold before a commit
check: lint types test

demo:
    .venv/bin/loop demo

# The numbers we promise, each with its floor
bench *args:
    {{ python }} -m benchmarks {{ args }}

# Exactly what CI does
ci:
    .ci/run
