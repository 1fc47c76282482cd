"""The installed command as a process, and configs for it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LINEAR = """\
parameters: {x1: {shape: [1], init: 100}, x2: {shape: [1], init: 200}}
constants: {c: 30, learning_rate: 0.01}
expression: f = 10 * x1 + c * x2
optimizer: {sgd: {lr: learning_rate}}
steps: [backward, step]
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    out: str
    err: str


def steprun(
    *arguments: str | Path, cwd: Path | None = None, stdin: str = "", environment: dict[str, str] | None = None
) -> Outcome:
    """Run `steprun` in a fresh process."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("STEPRUN_", "_STEPRUN"))}
    done = subprocess.run(
        [sys.executable, "-m", "runner", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**inherited, "COLUMNS": "100", **(environment or {})},
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
