"""The command line, in this process or in one of its own, and a config for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from typer.testing import CliRunner

from runner.cli.app import application

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
    """`steprun ARGUMENTS` in this process."""
    words = [str(argument) for argument in arguments]
    with contextlib.chdir(cwd or Path.cwd()), mock.patch.object(sys, "argv", ["steprun", *words]):
        shown = CliRunner().invoke(application, words, input=stdin, env=environment, prog_name="steprun")
    return Outcome(shown.exit_code, shown.stdout, shown.stderr)


def steprun_process(
    *arguments: str | Path, cwd: Path | None = None, stdin: str = "", environment: dict[str, str] | None = None
) -> Outcome:
    """`steprun ARGUMENTS` in a process of its own."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("STEPRUN_", "_STEPRUN"))}
    done = subprocess.run(
        [sys.executable, "-m", "runner", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**inherited, **(environment or {})},
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def top_modules_after(*arguments: str, cwd: Path | None = None) -> set[str]:
    """The modules that a process of its own holds after `steprun ARGUMENTS`."""
    code = "import sys; from runner.cli.main import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=cwd)
    return set(done.stderr.splitlines()[-1].split())
