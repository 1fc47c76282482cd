"""The config of a sweep directory."""

from __future__ import annotations

from pathlib import Path

from runner.config import Config, Limits, loads
from runner.config.files.safe_files import Folder
from runner.errors import UsageError

SWEEP_FILE = "sweep.yaml"


def load_sweep(directory: Path, allowed: tuple[Path, ...]) -> Config:
    """The resolved config of a sweep directory.

    Raises:
        UsageError: it cannot be read, or is not an ordinary file.
        ConfigError: the config is not valid.
    """
    path, limits = directory / SWEEP_FILE, Limits()
    try:
        with Folder(directory) as folder:
            text = folder.read(SWEEP_FILE, limits.file_bytes)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    return loads(text, directory, name=str(path), limits=limits, allowed_folders=allowed)
