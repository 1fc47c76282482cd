"""Loads a trained run as a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from runner.config import Config, overridden
from runner.faults import Faults
from runner.plan.checks.device import prepare_device
from runner.record.apply.columns import sources_of
from runner.record.apply.model import Model
from runner.record.apply.weights import weights_of
from runner.record.checkpoints.fitted import load_fitted
from runner.record.reading import Run, open_run
from runner.record.resuming.stopped import recorded_folders


def load_model(
    run: str | Path,
    at: str = "last",
    device: str | None = None,
    *,
    allowed_folders: Sequence[str | Path] = (),
) -> Model:
    """Load a recorded run as a function of tensors.

    Args:
        run: a run directory, or `runs/NAME/latest`.
        at: which weights: `last`, `best`, or the tag of a checkpoint.
        device: the torch device to compute on; that of the run by default.
        allowed_folders: folders from which constants may be read, besides those below the working directory.
    Raises:
        UsageError: it is not a run, or it has no such weights.
        RunError: a file of the run is damaged.
        ConfigError: the device is not available.
    """
    found = open_run(run)
    folders = folders_of(found, allowed_folders)
    return model_of(found, found.load_config(folders), at, device, folders)


def folders_of(run: Run, allowed: Sequence[str | Path]) -> list[Path]:
    """The folders from which a run may read: `allowed`, and recorded ones below the working directory."""
    return [*map(Path, allowed), *recorded_folders(run.manifest)]


def model_of(run: Run, config: Config, at: str, device: str | None, folders: Sequence[Path]) -> Model:
    """The model of a run whose config is loaded. Raises as `load_model`."""
    if device is not None:
        config = overridden(config, [f"device={json.dumps(device)}"])
    faults = Faults(config.document)
    prepare_device(config, faults)
    faults.stop()
    return Model(
        config,
        weights_of(run.path, at),
        sources=sources_of(run.manifest),
        fitted=load_fitted(run.path, run.manifest),
        device=config.device,
        allowed=folders,
    )
