"""The config of a sweep directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.config import Config, Limits, loads
from runner.config.files.safe_files import Folder
from runner.errors import Problem, UsageError
from runner.sweep.record.manifest import digest
from runner.text import steprun_command

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
        hint = "restore it from a backup, or run `steprun sweep` with the config again"
        raise UsageError(Problem(f"cannot read {path}: {error.strerror}", hint)) from error
    return loads(text, directory, name=str(path), limits=limits, allowed_folders=allowed)


def check_unchanged(directory: Path, manifest: Mapping[str, Any], config: Config) -> None:
    """Check that the config of a sweep directory is the one with which it began or was widened.

    Raises:
        UsageError: it has been edited, or is damaged.
    """
    known = manifest.get("config"), manifest.get("widening")  # the latter after a kill while it was widened
    if known[0] is not None and digest(written_text(config)) not in known:
        hint = f"restore it, or run `{steprun_command('sweep', directory / SWEEP_FILE)}`"
        message = f"{directory / SWEEP_FILE} has been edited since the sweep began: sweep.json has another digest of it"
        raise UsageError(Problem(message, hint))


def written_text(config: Config) -> str:
    """The config of a sweep as its directory has it."""
    return config.document.to_yaml(absolute_files=True)
