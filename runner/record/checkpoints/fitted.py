"""Saves and loads the tensors that a run computed from data: what is fitted is part of the run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.config.files.safe_files import Folder
from runner.errors import Problem, RunError
from runner.plan.memory import machine_memory
from runner.plan.tensors.fitting import COMPLEX
from runner.plan.tensors.run_files import FITTED_FILE
from runner.record.directory import write_atomically

FITTED = "fitted"
"""The manifest's key for the digest of that file; absent if nothing was fitted."""


def save_fitted(directory: Path, fitted: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write fitted tensors to a run directory, and return what its manifest records of them; nothing if there are none.

    Raises:
        RunError: the file cannot be written.
    """
    if not fitted:
        return {}
    from safetensors.torch import save

    stored = {
        name + COMPLEX * value.is_complex(): torch.view_as_real(value) if value.is_complex() else value
        for name, value in sorted(fitted.items())
    }
    data = save({key: value.detach().contiguous() for key, value in stored.items()})
    try:
        write_atomically(directory / FITTED_FILE, data)
    except OSError as error:
        message = f"cannot write {directory / FITTED_FILE}: {error.strerror or error}"
        raise RunError(Problem(message, "free space, or choose another --runs-dir")) from error
    return {FITTED: {"sha256": hashlib.sha256(data).hexdigest()}}


def load_fitted(directory: Path, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that a run computed from data; none if it computed none.

    Raises:
        RunError: the file is missing or damaged.
    """
    recorded = manifest.get(FITTED)
    if not recorded:
        return {}
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = directory / FITTED_FILE
    hint = "restore the run directory from a copy, or run its config again"
    try:
        with Folder(directory) as folder:
            data = folder.read(FITTED_FILE, machine_memory())
    except OSError as error:
        raise RunError(Problem(f"cannot read {path}: {error.strerror}", hint)) from error
    if hashlib.sha256(data).hexdigest() != recorded.get("sha256"):
        raise RunError(Problem(f"{path} is damaged: its digest does not match", hint))
    try:
        stored = load(data)
        return {
            key.removesuffix(COMPLEX): torch.view_as_complex(value) if key.endswith(COMPLEX) else value
            for key, value in stored.items()
        }
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise RunError(Problem(f"{path} is not a `.safetensors` file of a run", hint)) from error
