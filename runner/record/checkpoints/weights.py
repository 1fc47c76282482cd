"""Writes the weights of a run to `weights.safetensors`, and reads them back one by one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from runner.config.files.safe_files import Folder
from runner.engine.state import State
from runner.errors import Problem, RunError, UsageError
from runner.plan.data.arrays import open_safetensors, read_values, safetensors_entries
from runner.plan.data.sandbox import FileFault
from runner.plan.plan import Plan
from runner.plan.tensors.run_files import BEST_FILE, RESTORE, WEIGHTS_FILE
from runner.record.checkpoints.config_fields import config_digest
from runner.record.checkpoints.tensor_file import Digested, pieces_of
from runner.record.directory import write_atomically
from runner.text import steprun_command


def save_weights(plan: Plan, state: State, directory: Path, name: str = WEIGHTS_FILE, *, named: bool = True) -> str:
    """Write the weights of a run atomically, each under its own name, in its true dtype; return the file's SHA-256.

    The metadata has the digest of the run's config and the number of the last row.

    Args:
        named: whether the name is durable once this returns; otherwise the next sync of the directory makes it so.
    Raises:
        RunError: the file cannot be written.
    """
    weights = {key: parameter.detach() for key, parameter in state.parameters.items()}
    return write_weights(plan, weights, state.row, directory, name, named=named)


def write_weights(
    plan: Plan, weights: Mapping[str, Tensor], rows: int, directory: Path, name: str, *, named: bool = True
) -> str:
    """Write weights as `save_weights` does, with the number of rows before them."""
    metadata = {
        "format": "pt",
        "run": plan.name,
        "config": config_digest(plan.config.document),
        "row": str(rows - 1),
    }
    pieces = Digested(pieces_of(weights, metadata))
    try:
        write_atomically(directory / name, pieces, named=named)
    except OSError as error:
        message = f"cannot write {name} to {directory}: {error.strerror or error}"
        hint = f"free space, and `{steprun_command('resume', directory)}` goes on"
        raise RunError(Problem(message, hint)) from error
    return pieces.digest


def digest_of_best(directory: Path) -> dict[str, str]:
    """Returns the SHA-256 of the best weights by file name; nothing if the run has none."""
    try:
        with Folder(directory) as folder, folder.open(BEST_FILE) as file:
            return {BEST_FILE: hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError:
        return {}


class Weights(Mapping[str, Tensor]):
    """The weights that a run left, by name; each access reads one tensor from the file.

    Args:
        expected: the SHA-256 of the file, as the run recorded it; None if it recorded none.
    Raises:
        UsageError: the run left no weights.
        RunError: the file is damaged.
    """

    __slots__ = ("_names", "path")

    def __init__(self, directory: Path, name: str = WEIGHTS_FILE, expected: str | None = None) -> None:
        self.path = Path(os.path.realpath(directory)) / name
        try:
            with Folder(directory) as folder, folder.open(name) as file:
                if expected is not None and hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    raise FileFault("its digest does not match", RESTORE)
                file.seek(0)
                _, entries = safetensors_entries(file, os.fstat(file.fileno()).st_size, name)
        except FileNotFoundError as error:
            hint = "a run writes it when it ends, unless it says `log: {weights: false}`"
            raise UsageError(Problem(f"{directory} has no {name}", hint)) from error
        except OSError as error:
            raise UsageError(f"cannot read {directory / name}: {error.strerror}") from error
        except FileFault as fault:
            raise self._damaged(fault) from fault
        self._names = tuple(entries)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        try:
            with open_safetensors(self.path, name) as (header, stream):
                return read_values(header, stream, f"{self.path.name}#{name}")
        except FileFault as fault:
            raise self._damaged(fault) from fault

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<Weights {self.path}: {', '.join(self._names)}>"

    def _damaged(self, fault: FileFault) -> RunError:
        return RunError(Problem(f"{self.path} is damaged: {fault.message}", fault.hint))
