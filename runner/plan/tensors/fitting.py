"""Tensors whose initial expressions read data sources: their values are computed once, while planning."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.config import Config, Limits, loads
from runner.config.files.run_paths import CONFIG_FILE
from runner.config.files.safe_files import Folder
from runner.errors import ConfigError, Problem
from runner.faults import Faults, PlacedFault
from runner.language.dtypes import dtype_name
from runner.plan.data.arrays import safetensors_contents
from runner.plan.data.files import ArrayFile, FileFault, read
from runner.plan.data.reading.fits import fits_of
from runner.plan.data.reading.fits import fitted as fits_of_sources
from runner.plan.data.sandbox import open_ordinary
from runner.plan.data.sources import SourcePlan
from runner.plan.scalars import scalar_constants
from runner.plan.tensors.from_run import FromRunPlan, from_run_path
from runner.plan.tensors.initial import Computed
from runner.plan.tensors.initial_values import InitialContext, initial_values
from runner.plan.tensors.run_files import FITTED_FILE, find_weights
from runner.plan.tensors.tensors import TensorPlan

_COPIES = 4
"""How often an expression that holds a column may need its bytes: the column, and results of its size."""


COMPLEX = ".complex"
"""The end of the key of a complex tensor in a file of fitted tensors, stored as pairs of real numbers."""


def fitted_values(
    tensors: Mapping[str, TensorPlan], context: InitialContext, start: FromRunPlan | None = None
) -> InitialContext:
    """The context with the value of each tensor whose expression reads a data source.

    Args:
        start: the run that the config starts from, which gives the values that it computed itself.
    Raises:
        PlacedFault: a value cannot be computed, or that of the other run has another shape or dtype.
    """
    paths = {name: tensor.init.path for name, tensor in tensors.items() if isinstance(tensor.init, Computed)}
    recorded = {name: value for name, value in context.fitted.items() if name in paths}
    names = [name for name, path in paths.items() if path in context.fitting and name not in recorded]
    if start is not None and names:
        taken = _of_run(start, {name: tensors[name] for name in names})
        recorded |= taken
        names = [name for name in names if name not in taken]
    values = initial_values(tensors, replace(context, fitted=recorded), names) if names else {}
    return replace(context, fitted=recorded | {name: values[name] for name in names})


def _of_run(start: FromRunPlan, tensors: Mapping[str, TensorPlan]) -> dict[str, Tensor]:
    """The values of tensors that a run computed from data."""
    path = None if start.weights.directory is None else start.weights.directory / FITTED_FILE
    if path is None or not path.exists():
        return {}
    found: dict[str, Tensor] = {}
    try:
        with open_ordinary(path) as file:
            _, entries, _ = safetensors_contents(file, os.fstat(file.fileno()).st_size, path.name)
        for name, tensor in tensors.items():
            if name in entries:
                found[name] = read(ArrayFile(path, name, None))
            elif name + COMPLEX in entries:
                found[name] = torch.view_as_complex(read(ArrayFile(path, name + COMPLEX, None)))
            if name in found:
                _check_like(tensor, found[name])
    except FileFault as fault:
        raise PlacedFault(("from_run",), fault.message, fault.hint) from fault
    return found


def _check_like(tensor: TensorPlan, value: Tensor) -> None:
    if tuple(value.shape) != tensor.shape or value.dtype != tensor.dtype:
        one = f"{dtype_name(tensor.dtype)} of shape {list(tensor.shape)}"
        other = f"{dtype_name(value.dtype)} of shape {list(value.shape)}"
        message = f"`{tensor.name}` is {one}, and the run of `from_run` computed {other}"
        raise PlacedFault(tensor.path, message, "rename it to compute it from this data", key=True)


def with_fits(config: Config, allowed: Iterable[Path], memory: int) -> tuple[Config, list[Problem]]:
    """The config with what its sources take from their rows, classes and numbers for missing ones; and warnings.

    Raises:
        ConfigError: a source cannot be read, or has nothing to take them from.
    """
    if not config.data:
        return config, []
    faults = Faults(config.document)
    scalars = scalar_constants(config, Faults(config.document))  # without those that count classes; reported later
    recorded = _fits_of_run(config, allowed)
    config = fits_of_sources(config, scalars, faults, allowed, memory, recorded)
    faults.stop()
    return config, faults.warnings


def _fits_of_run(config: Config, allowed: Iterable[Path]) -> Mapping[tuple[str, str], Any]:
    """What the sources of the run of `from_run` took from their rows."""
    if config.from_run is None:
        return {}
    folders = (*config.document.folders(), *allowed)
    try:
        weights = find_weights(config.from_run, config.document.folder(from_run_path(config, "run")), folders)
    except FileFault:  # reported with the weights
        return {}
    if weights.directory is None:
        return {}
    limits = Limits()
    try:
        with Folder(weights.directory) as folder:
            text = folder.read(CONFIG_FILE, limits.file_bytes)
        run = loads(text, weights.directory, name=CONFIG_FILE, limits=limits, allowed_folders=folders)
    except (OSError, ConfigError) as error:
        message = f"`config.yaml` of {weights.name.rpartition('/')[0]} cannot be read"
        place = PlacedFault(from_run_path(config, "run"), message, "restore the run, or name its weights file")
        raise ConfigError([place.problem(config.document)]) from error
    return fits_of(run)


def room_for_columns(context: InitialContext) -> int:
    """Bytes to allocate beyond those of other expressions, for columns that an initial expression may hold."""
    sizes = [column.bytes for column in context.columns.values() if column.bytes <= column.limit]
    return _COPIES * max(sizes, default=0)


def sizes_of(sources: Mapping[str, SourcePlan]) -> dict[str, tuple[int, ...]]:
    """The shape of each column by name, for scalar expressions: `train.x.shape`."""
    return {
        f"{name}.{column.name}.shape": (source.samples, *column.shape)
        for name, source in sources.items()
        for column in source.columns
    }
