"""Executes and records a config, for both `steprun run` and `runner.run`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from runner.config import load, overridden
from runner.engine import Compiling, execute, execute_together, initial_state
from runner.engine.rows import AnyRows, Rows
from runner.engine.session import SaveCheckpoint
from runner.engine.state import State
from runner.engine.watch.warned import torch_warnings_placed, warning_again
from runner.engine.watch.watch import Watch, report_as_warning
from runner.errors import ExpectationError, Problem
from runner.language.dtypes import dtype_name
from runner.plan import Plan, compile
from runner.plan.memory import limited_data
from runner.plan.tensors.run_files import BEST, BEST_FILE, LAST, WEIGHTS_FILE
from runner.record.checkpoints.carried import carry_checkpoints, keep_checkpoints
from runner.record.checkpoints.config_fields import config_fields
from runner.record.checkpoints.fitted import save_fitted
from runner.record.checkpoints.store import load_checkpoint, save_checkpoint
from runner.record.checkpoints.weights import digest_of_best, save_weights
from runner.record.data_files import DATA_COLUMNS, DATA_FILES, data_columns, data_files, digesting
from runner.record.directory import create_run_directory
from runner.record.manifest import RunDescription
from runner.record.reading import Run, open_run
from runner.record.recorder import Copied, Recorded, Recording, recording
from runner.record.rows.transfer import transfer_from

CONTINUES = "continues"
"""The manifest's key for the finished run that a longer one begins with."""

CONFIG_FIELDS = "config_fields"
"""The manifest's key for the fields that the rows depend on."""


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
        allowed_folders: folders that the config may read from besides its own.
    Raises:
        ConfigError: the config is not valid; nothing was run.
        RunError: a step failed, or rows could not be written; the rows recorded before can be opened.
    """
    config = load(path, overrides, allowed_folders=allowed_folders)
    plan = compile(config, allowed=[Path(folder) for folder in allowed_folders])
    directory = create_run_directory(Path(runs_dir), plan.name, datetime.now())
    run_recorded(plan, directory)
    return open_run(directory)


@dataclass(frozen=True, slots=True)
class Earlier:
    """A finished run, whose first rows and kept state a longer run begins with."""

    run: Run
    rows: int  # how many of its rows the longer run has
    checkpoint: Path
    field: str  # the field of the config that grows
    changed_data: tuple[str, ...] = ()  # data files that have changed; the user allowed this


@dataclass(frozen=True, slots=True)
class Resumption:
    """The place from which to resume a run."""

    recorded: Recorded
    checkpoint: Path | None  # None: from the start


def run_recorded(
    plan: Plan,
    directory: Path,
    *,
    command: Sequence[str] | None = None,
    see: Callable[[AnyRows], None] | None = None,
    checkpoint_every: int | None = None,
    stop: Callable[[], bool] | None = None,
    resumption: Resumption | None = None,
    earlier: Earlier | None = None,
    compiling: Compiling | None = None,
) -> None:
    """Execute a plan and record it in a directory from `create_run_directory`.

    Args:
        command: the command line for the manifest; this process's by default.
        see: called with each row after it is recorded, or with rows that were computed together.
        checkpoint_every: number of rows between checkpoints.
        stop: called after each row. If it returns true, the state is saved, and the run ends as interrupted.
        resumption: where to resume a stopped run. Rows on disk are computed again, but not written again.
        earlier: a finished run that this one makes longer.
        compiling: called at each compilation of `engine: compile` and `engine: xla`.
    Raises:
        RunError: a step failed, or rows could not be written; the rows recorded before can be opened.
        KeyboardInterrupt: `stop` returned true.
    """
    state = initial_state(plan)
    if resumption is not None and resumption.checkpoint is not None:
        load_checkpoint(plan, state, resumption.checkpoint)
    if earlier is not None:
        carry_checkpoints(plan, state, earlier.run.path, directory, earlier.field)
        load_checkpoint(plan, state, earlier.checkpoint, grown=earlier.field)
    recorded = None if resumption is None else resumption.recorded
    files = data_files(plan.files)
    plan = _as_recorded(plan, files)
    more = save_fitted(directory, plan.fitted)
    description = _description(plan, sys.argv if command is None else command, files, earlier, more)
    transfer = transfer_from(plan.device)
    copied = None if earlier is None else Copied(earlier.run.parts, earlier.rows)
    with recording(directory, plan.columns, description, _config_text(plan), recorded, transfer, copied) as record:
        for problem in state.warnings:
            record.warn(problem.render())
        report = _recording_warnings(record)
        watch = Watch(plan, state, report)
        save = _saving_state(plan, state, directory, watch, record)
        finish = _finishing(plan, state, directory, record)
        measure = _recording_compilations(record, compiling)
        rows = _computed(plan, state, checkpoint_every is None, checkpoint=save, watch=watch, compiling=measure)
        if recorded is not None:
            rows = _after(rows, recorded.rows)
        if checkpoint_every is not None or stop is not None:
            rows = _saving(rows, save, checkpoint_every, stop, finish)
        try:
            with digesting(files, record.digest), limited_data(plan.memory), torch_warnings_placed(plan, report):
                _write(warning_again(rows), record, see)
        except ExpectationError:  # the step changed nothing: the weights are those of the last row
            finish()
            raise
        finish()


def _computed(plan: Plan, state: State, together: bool, **given: Any) -> Iterable[AnyRows]:
    """The rows of a run: with `together`, many at once where the engine computes them so."""
    return execute_together(plan, state, **given) if together else execute(plan, state, shared=True, **given)


def _recording_warnings(record: Recording) -> Callable[[Problem], None]:
    def report(problem: Problem) -> None:
        record.warn(problem.render())
        report_as_warning(problem)

    return report


def _recording_compilations(record: Recording, compiling: Compiling | None) -> Compiling:
    def measure(path: str, seconds: float | None) -> None:
        if seconds is not None:
            record.compiled(seconds)
        if compiling is not None:
            compiling(path, seconds)

    return measure


def _saving_state(plan: Plan, state: State, directory: Path, watch: Watch, record: Recording) -> SaveCheckpoint:
    """A function that saves a checkpoint, after the rows before it."""

    def save(tag: str | None) -> None:
        if tag == LAST and not plan.config.log.weights:
            return
        if watch.sound():  # a run must not resume from a step that makes it fail
            record.flush()
            if tag == BEST and plan.config.log.weights:  # first: a run that resumes from the checkpoint has them
                save_weights(plan, state, directory, BEST_FILE)
            if tag == LAST:
                keep_checkpoints(plan, directory)
            save_checkpoint(plan, state, directory, tag)

    return save


def _finishing(plan: Plan, state: State, directory: Path, record: Recording) -> Callable[[], None]:
    """A function that ends the record, and saves the weights."""

    def finish() -> None:
        record.end()
        if plan.config.log.weights:
            # the manifest follows, and makes the name durable
            last = save_weights(plan, state, directory, named=False)
            record.wrote_weights({WEIGHTS_FILE: last} | digest_of_best(directory))

    return finish


def _write(rows: Iterable[AnyRows], record: Recording, see: Callable[[AnyRows], None] | None) -> None:
    write, write_together = record.write, record.write_together
    for row in rows:
        if isinstance(row, Rows):
            write_together(row)
        else:
            write(row)
        if see is not None:
            see(row)


def _after(rows: Iterable[AnyRows], first: int) -> Iterator[AnyRows]:
    """The rows from number `first` on."""
    for row in rows:
        if row.number >= first:
            yield row
        elif isinstance(row, Rows) and (left := row.since(first)):
            yield left


def _saving(
    rows: Iterable[AnyRows],
    save: Callable[[str | None], None],
    every: int | None,
    stop: Callable[[], bool] | None,
    finish: Callable[[], None],
) -> Iterator[AnyRows]:
    """Yields the rows; saves a checkpoint after every `every` rows.

    If `stop` is true, it saves one, calls `finish`, and raises KeyboardInterrupt.
    """
    for row in rows:
        yield row
        if every is not None and row.number and row.number % every == 0:
            save(None)
        if stop is not None and stop():
            save(None)
            finish()
            raise KeyboardInterrupt


def _as_recorded(plan: Plan, files: Mapping[str, Mapping[str, Any]]) -> Plan:
    """The plan with the config that is recorded: `from_run` names the run itself, and has the digest of its weights."""
    start = plan.start
    if start is None:
        return plan
    declared = {"run": str(start.run), "at": start.at, "optimizer": start.optimizer}
    whole = files[str(start.weights.path)].get("sha256")
    if whole is not None:
        declared["sha256"] = whole
    return replace(plan, config=overridden(plan.config, [f"from_run={json.dumps(declared)}"]))


def _description(
    plan: Plan, command: Sequence[str], files: Mapping[str, Any], earlier: Earlier | None, fitted: Mapping[str, Any]
) -> RunDescription:
    more: dict[str, Any] = {**fitted}
    if earlier is not None:
        grown = {"run": os.path.abspath(earlier.run.path), "row": earlier.rows, "field": earlier.field}
        more[CONTINUES] = grown | ({"changed_data": list(earlier.changed_data)} if earlier.changed_data else {})
    return RunDescription(
        command=command,
        name=plan.name,
        seed=plan.seed,
        device=plan.device,
        dtype=dtype_name(plan.dtype),
        engine=plan.config.engine,
        engine_reason=plan.engine_reason if earlier is None else earlier.run.manifest.get("engine_reason"),
        warnings=[problem.render() for problem in plan.warnings],
        more={
            "data_folders": [str(folder) for folder in plan.config.document.folders()],
            CONFIG_FIELDS: config_fields(plan.config.document),
            DATA_FILES: files,
            DATA_COLUMNS: data_columns(plan.declared),
            **more,
        },
    )


def _config_text(plan: Plan) -> str:
    return plan.config.document.to_yaml(absolute_files=True)
