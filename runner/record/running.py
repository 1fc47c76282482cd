"""A config executed and recorded: the way that `steprun run` and `runner.run` share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from runner.config import load
from runner.engine import execute
from runner.engine.rows import Row
from runner.plan import Plan, compile
from runner.record.directory import create_run_directory
from runner.record.manifest import RunDescription
from runner.record.reading import Run, open_run
from runner.record.recorder import recording
from runner.record.storage import dtype_name


def run(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    runs_dir: str | Path = "runs",
    allowed_folders: Sequence[str | Path] = (),
) -> Run:
    """Execute a config and record it in a new directory below `runs_dir`.

    Args:
        overrides: `name=value`, `a.b.c=value` or `~path`, applied in order; values are YAML.
        allowed_folders: folders that it may read from besides its own.
    Raises:
        ConfigError: the config is not valid; nothing was run.
        RunError: a step failed, or rows could not be written; what was recorded before can be opened.
    """
    config = load(path, overrides, allowed_folders=allowed_folders)
    plan = compile(config, allowed=[Path(folder) for folder in allowed_folders])
    directory = create_run_directory(Path(runs_dir), plan.name, datetime.now())
    run_recorded(plan, directory)
    return open_run(directory)


def run_recorded(
    plan: Plan,
    directory: Path,
    *,
    command: Sequence[str] | None = None,
    see: Callable[[Row], None] | None = None,
) -> None:
    """Execute a plan and record it in a directory that `create_run_directory` made.

    Args:
        command: for the manifest; this process's unless given.
        see: called with each row once it is recorded.
    Raises:
        RunError: a step failed, or rows could not be written; what was recorded before can be opened.
    """
    with recording(
        directory, plan.columns, _description(plan, sys.argv if command is None else command), _config_text(plan)
    ) as record:
        write = record.write
        if see is None:
            for row in execute(plan):
                write(row)
        else:
            for row in execute(plan):
                write(row)
                see(row)


def _description(plan: Plan, command: Sequence[str]) -> RunDescription:
    return RunDescription(
        command=command,
        name=plan.name,
        seed=plan.seed,
        device=plan.device,
        dtype=dtype_name(plan.dtype),
        engine=plan.config.engine,
        warnings=[problem.render() for problem in plan.warnings],
    )


def _config_text(plan: Plan) -> str:
    return plan.config.document.to_yaml(absolute_files=True)
