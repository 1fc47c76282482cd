"""Makes the run directory of one point of a sweep, so that every command for runs works on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
from torch import Tensor

from runner.config import Config, overridden
from runner.config.files.run_paths import CONFIG_FILE
from runner.config.files.run_paths import MANIFEST_FILE as RUN_FILE
from runner.config.files.safe_files import LARGEST_JSON, Folder, parse_json
from runner.config.keys import AUTO
from runner.errors import ConfigError, RunError
from runner.plan import Plan, compile
from runner.plan.checks.engines.versions import JAX
from runner.plan.tensors.run_files import WEIGHTS_FILE
from runner.record.checkpoints.config_fields import config_digest, config_fields
from runner.record.checkpoints.fitted import save_fitted
from runner.record.checkpoints.tensor_file import Digested, pieces_of
from runner.record.data_files import DATA_COLUMNS, DATA_FILES, data_columns, data_files
from runner.record.directory import ROWS_FOLDER, write_atomically
from runner.record.rows.arrow import columns_of
from runner.record.rows.parquet import encode
from runner.record.rows.part_digests import check_parts, digest_of, write_digests
from runner.record.rows.storage import column_json, stored_column
from runner.sweep.points.identity import Identities
from runner.sweep.points.outcome import Outcome, to_json
from runner.sweep.points.space import without_sweep

RUNS_FOLDER = "runs"


def point_directory(
    path: Path,
    sweep: Mapping[str, Any],
    config: Config,
    outcome: Outcome,
    table: pyarrow.Table,
    weights: Mapping[str, Tensor],
) -> Path:
    """The run directory of a point; it is made if it does not exist or is damaged, or if the point
    has run again since.

    Args:
        path: the sweep directory.
        sweep: its manifest.
        config: its config.
        table: the rows of the point.
        weights: its parameters.
    """
    directory = path / RUNS_FOLDER / str(outcome.index)
    if _is_sound(directory, outcome):
        return directory
    with (
        Folder(path) as folder,
        folder.folder(RUNS_FOLDER, create=True) as runs,
        runs.folder(str(outcome.index), create=True) as made,
        made.folder(ROWS_FOLDER, create=True) as rows,
    ):
        for name in rows.names():
            rows.remove(name)
    config = overridden(without_sweep(config), outcome.overrides)
    plan = _plan_of(config, sweep, outcome)
    if plan is not None and config.engine == AUTO:
        config = overridden(config, [f"engine={plan.config.engine}"])
    columns = columns_of(table.schema)
    content = memoryview(encode([table], [stored_column(column) for column in columns]))
    name = "00000.parquet"
    write_atomically(directory / ROWS_FOLDER / name, content, through=directory)
    write_digests(directory, {name: digest_of(content)}, synced=False)
    text = config.document.to_yaml(absolute_files=True).encode()
    write_atomically(directory / CONFIG_FILE, text)
    digests = {CONFIG_FILE: digest_of(text)}
    manifest = _manifest(path, sweep, outcome, config.engine) | {
        "seed": config.seed,
        "engine": config.engine,
        "engine_reason": None if plan is None else plan.engine_reason,
        "columns": [column_json(column) for column in columns],
        "config_fields": config_fields(config.document),
        **({} if plan is None else _of_data(directory, plan)),
    }
    if weights:
        metadata = {"format": "pt", "config": config_digest(config.document), "row": str(outcome.rows - 1)}
        pieces = Digested(pieces_of(weights, metadata))
        write_atomically(directory / WEIGHTS_FILE, pieces)
        digests[WEIGHTS_FILE] = pieces.digest
    manifest["sweep"]["sha256"] = digests
    write_atomically(directory / RUN_FILE, (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())
    return directory


def _plan_of(config: Config, sweep: Mapping[str, Any], outcome: Outcome) -> Plan | None:
    """The plan of a point; None if its data is not as it was, for the rows can be read all the same."""
    try:
        plan = compile(config, allowed=[Path(folder) for folder in sweep["data_folders"]])
    except ConfigError:
        return None
    return plan if Identities().of(config) == outcome.identity else None


def _of_data(directory: Path, plan: Plan) -> dict[str, Any]:
    """What a run records of its data, which `apply` needs."""
    return {
        DATA_FILES: data_files(plan.files),
        DATA_COLUMNS: data_columns(plan.declared),
        **save_fitted(directory, plan.fitted),
    }


def _manifest(path: Path, sweep: Mapping[str, Any], outcome: Outcome, engine: str) -> dict[str, Any]:
    shared = ("command", "name", "process", "started", "data_folders")
    versions = dict(sweep["versions"])
    of_engine = {name: versions.pop(name) for name in JAX if name in versions}
    if engine != "xla":
        of_engine = {}
    failure = {"error": "RunError", "problems": [{"message": outcome.failure}]} if outcome.failure else None
    return {key: sweep[key] for key in shared} | {
        "versions": versions | of_engine,
        "environment": sweep["environment"] | of_engine,
        "status": "failed" if outcome.status == "failed" else "finished",
        "ended": sweep["ended"],
        "git": None,
        "seconds": outcome.seconds,
        "compile_seconds": None,
        "rows": outcome.rows,
        "failure": failure,
        "warnings": [] if outcome.warning is None else [outcome.warning],
        "sweep": {
            "path": str(path),
            "point": outcome.index,
            "identity": outcome.identity,
            "outcome": _digest_of_outcome(outcome),
        },
    }


def _digest_of_outcome(outcome: Outcome) -> str:
    """What differs if a point runs again: its seconds, and its results."""
    return digest_of(to_json([outcome]).encode())


def _is_sound(directory: Path, outcome: Outcome) -> bool:
    """Whether a run directory is that of this outcome, and its files are as they were written."""
    try:
        with (
            Folder(directory.parent.parent) as sweep,
            sweep.folder(RUNS_FOLDER) as runs,
            runs.folder(directory.name) as folder,
        ):
            manifest = parse_json(folder.read(RUN_FILE, LARGEST_JSON))
            if manifest["sweep"]["identity"] != outcome.identity or manifest["rows"] != outcome.rows:
                return False
            if manifest["sweep"].get("outcome") not in (None, _digest_of_outcome(outcome)):
                return False
            for name, expected in manifest["sweep"]["sha256"].items():
                with folder.open(name) as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                        return False
        check_parts(directory)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RunError):
        return False
    return True
