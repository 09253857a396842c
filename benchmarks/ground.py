"""Where the benchmarks run: throw-away repositories with a backlog, a scripted agent and an environment of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

AGENT = """\
#!/bin/sh
# Sleeps as long as the task's title says, then writes one file of its own.
test -z "$SLEEP" || sleep "$SLEEP"
echo done > "src/$HEW_TASK_ID.txt"
"""

CONFIG = """\
[loop]
runtime = "script"

[runtime.script]
command = ["{shell}", "{agent}"]
prompt = "file"
"""

GIT_CONFIG = "[user]\n\tname = Benchmark\n\temail = benchmark@example.org\n[init]\n\tdefaultBranch = main\n"
