"""Plans `from_run`: which parameters start from the weights of another run, or of a weights file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any

import torch

from runner.config import Config
from runner.config.record_models import FromRun
from runner.errors import listing
from runner.faults import Faults, PlacedFault
from runner.language.dtypes import dtype_name
from runner.language.inference.inference import readable_bytes
from runner.optim.plans import Path
from runner.plan.data.arrays import Header, safetensors_contents, safetensors_header, true_dtypes, true_header
from runner.plan.data.files import ArrayFile
from runner.plan.data.sandbox import FileFault, open_ordinary
from runner.plan.tensors.initial import Loaded
from runner.plan.tensors.run_files import LAST, Weights, find_weights, rows_of
from runner.plan.tensors.tensors import TensorPlan

LARGEST_DIGEST = 1 << 30
"""The largest weights file, in bytes, that planning compares with a digest."""

_MOST_NAMES = 6


@dataclass(frozen=True, slots=True)
class FromRunPlan:
    """The weights that a config starts from."""

    weights: Weights
    at: str
    optimizer: bool
    taken: tuple[str, ...]  # parameters that start from these weights
    own: tuple[str, ...]  # parameters that the weights lack; they keep their `init`
    unused: tuple[str, ...]  # weights that the config does not declare

    @property
    def run(self) -> FilePath:
        """The run directory, or the weights file."""
        return self.weights.directory or self.weights.path


def plan_from_run(
    config: Config, tensors: Mapping[str, TensorPlan], allowed: Iterable[FilePath], faults: Faults
) -> tuple[FromRunPlan | None, Mapping[str, TensorPlan]]:
    """Which weights the parameters start from, and the tensors with these initial values.

    Shapes must be equal. A dtype may be wider than that of the weights, such as float64 for float32.

    Args:
        tensors: the declared tensors.
        faults: receives the problems, and a warning about names on one side only.
    """
    declared = config.from_run
    if declared is None:
        return None, tensors
    path = from_run_path(config, "run")
    try:
        weights = find_weights(declared, config.document.folder(path), (*config.document.folders(), *allowed))
        headers = _headers(weights)
        _check_digest(declared, weights)
    except FileFault as fault:
        place = path if fault.field is None else from_run_path(config, fault.field)
        faults.add(place, fault.message, fault.hint)
        return None, tensors
    parameters = {name: tensor for name, tensor in tensors.items() if tensor.role == "parameter"}
    taken = tuple(name for name in parameters if name in headers)
    if not taken:
        held = f"it has {_names(headers)}" if headers else "it is empty"
        faults.add(path, f"no parameter of this config is in {weights.name}", f"use the names of the run: {held}")
        return None, tensors
    for name in taken:
        with faults.collecting():
            _check_like(parameters[name], headers[name], weights)
    own = tuple(name for name in parameters if name not in headers)
    unused = tuple(name for name in headers if name not in parameters)
    if declared.at == LAST and weights.checkpoint is not None and weights.directory is not None:
        kept, ended = _rows_until(weights.checkpoint), rows_of(weights.directory)
        if ended is not None and kept != ended:
            message = f"{weights.name} is the state that the run kept after {kept} of its {ended} rows"
            faults.warn(path, message, "for the state at the end, put a `checkpoint` step there and name its tag")
    if own:
        keep = "keeps its" if len(own) == 1 else "keep their"
        hint = "rename a parameter that the run has under another name"
        faults.warn(path, f"{weights.name} has no {_names(own)}, which {keep} own initial values", hint)
    if unused:
        declares = f"{weights.name} has {_names(unused)}, which this config does not declare"
        faults.warn(path, declares, "declare the parameters that you need under these names")
    loaded = {name: replace(parameters[name], init=_loaded(weights, name, path)) for name in taken}
    plan = FromRunPlan(weights, declared.at or "last", declared.optimizer, taken, own, unused)
    return plan, MappingProxyType({name: loaded.get(name, tensor) for name, tensor in tensors.items()})


def _rows_until(checkpoint: Mapping[str, Any]) -> int | None:
    """The rows until a state, with those that wait for the end of their loop."""
    row = checkpoint.get("row")
    match checkpoint:
        case {"state": {"mapping": [*pairs]}}:
            waiting = next((pair[1] for pair in pairs if isinstance(pair, list) and pair[:1] == ["last"]), None)
        case _:
            waiting = None
    match waiting:
        case {"list": [*rows]} if isinstance(row, int):
            return row + len(rows)
    return row


def from_run_path(config: Config, field: str) -> Path:
    """The path of a field; of the whole `from_run` in its short form."""
    path: Path = ("from_run", field)
    return path if config.document.node(path) is not None else ("from_run",)


def _loaded(weights: Weights, name: str, path: Path) -> Loaded:
    return Loaded(ArrayFile(weights.path, name, None), path, path)


def _headers(weights: Weights) -> dict[str, Header]:
    """The shape and dtype of each weight in the file."""
    with open_ordinary(weights.path) as file:
        size = os.fstat(file.fileno()).st_size
        _, entries, metadata = safetensors_contents(file, size, weights.name)
    dtypes = true_dtypes(metadata)
    found = {}
    for key, entry in entries.items():
        if weights.checkpoint is None or "." not in key:  # a checkpoint's other tensors have dots in their names
            header, _, _ = safetensors_header(entry, f"{weights.name}#{key}")
            found[key] = true_header(header, dtypes.get(key))
    return found


def _check_like(tensor: TensorPlan, header: Header, weights: Weights) -> None:
    """Raise PlacedFault unless a parameter can start from a stored weight."""
    owner = f"{weights.name}#{tensor.name}"
    if tensor.shape != header.shape:
        message = f"`{tensor.name}` has shape {list(tensor.shape)}, and {owner} has shape {list(header.shape)}"
        hint = f"write `shape: {list(header.shape)}`, or rename the parameter to keep its own initial values"
        raise PlacedFault((*tensor.path, "shape"), message, hint)
    if not _holds(tensor.dtype, header.dtype):
        message = f"`{tensor.name}` is {dtype_name(tensor.dtype)}, and {owner} is {dtype_name(header.dtype)}"
        raise PlacedFault((*tensor.path, "dtype"), message, f"write `dtype: {dtype_name(header.dtype)}`")


def _holds(dtype: torch.dtype, stored: torch.dtype) -> bool:
    """Whether a dtype represents every value of a stored dtype of its kind."""
    if dtype == stored:
        return True
    kinds = [(each.is_floating_point, each.is_complex, each == torch.bool) for each in (dtype, stored)]
    if kinds[0] != kinds[1] or torch.float8_e8m0fnu in (dtype, stored):
        return False
    if dtype.is_floating_point or dtype.is_complex:
        ours, theirs = torch.finfo(dtype), torch.finfo(stored)
        return ours.eps <= theirs.eps and ours.max >= theirs.max and ours.smallest_normal <= theirs.smallest_normal
    own, other = torch.iinfo(dtype), torch.iinfo(stored)
    return own.min <= other.min and own.max >= other.max


def _check_digest(declared: FromRun, weights: Weights) -> None:
    if declared.sha256 is None:
        return
    with open_ordinary(weights.path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_DIGEST:
            message = f"{weights.name} has {readable_bytes(size)}, and digests are compared up to 1 GiB"
            raise FileFault(message, "remove `sha256`", field="sha256")
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != declared.sha256:
        message = f"{weights.name} has other weights than this config was recorded with: their digest is {found[:16]}…"
        raise FileFault(message, "restore the weights, or remove `sha256` to start from these", field="sha256")


def _names(names: Iterable[str]) -> str:
    return listing([f"`{name}`" for name in names], _MOST_NAMES)
