"""Runs on the command line: a directory, `runs/NAME/latest`, or a point of a sweep, `SWEEP#17`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from runner.errors import Problem, UsageError

_POINT = re.compile(r"(.+)#([0-9]{1,9})")


def run_path(text: str) -> str:
    """The path of a run; the run directory of a point is made if it does not exist.

    Raises:
        UsageError: the sweep has no such point, or the point has no rows.
    """
    found = point_of(text)
    if found is None:
        return text
    from runner.sweep.record.reading import open_sweep

    directory, point = found
    return str(open_sweep(directory).run(point).path)


def point_of(text: str) -> tuple[Path, int] | None:
    """The sweep directory and the index of the point that a text names; None if it names something else."""
    from runner.config.files.run_paths import SWEEP_MANIFEST, is_run, resolved_sweep

    found = _POINT.fullmatch(text)
    if found is None:
        return None
    directory = resolved_sweep(found[1])
    return (directory, int(found[2])) if is_run(directory, SWEEP_MANIFEST) else None


def config_path(text: str) -> tuple[str, tuple[str, ...]]:
    """The path of a config, and the folders of its data; a run stands for its config.

    Raises:
        UsageError: a point of a sweep does not exist or has no rows, or the manifest of a run is damaged.
    """
    from runner.config.files.run_paths import CONFIG_FILE, is_run, resolved_run

    directory = resolved_run(run_path(text))
    if not is_run(directory):
        return text, ()
    from runner.record.manifest import read_manifest
    from runner.record.resuming.stopped import recorded_folders

    folders = recorded_folders(read_manifest(directory))
    return str(directory / CONFIG_FILE), tuple(map(str, folders))


def check_no_point(text: str, command: str) -> None:
    """Check that a text does not name a point of a sweep.

    Args:
        command: what to write for the whole sweep, without its directory.
    Raises:
        UsageError: it names one.
    """
    found = point_of(text)
    if found is not None:
        hint = f"`{command} {found[0]}` takes the whole sweep"
        raise UsageError(Problem(f"{text} is one point of a sweep", hint))


def check_options(text: str, noun: str, of: str, given: Mapping[str, object]) -> None:
    """Check that no option is given that is for something else.

    Args:
        noun: what the text names: "a run".
        of: what the options are for: "a sweep".
        given: the value of each option; none, or a false one, if it is not given.
    Raises:
        UsageError: one is given.
    """
    for option, value in given.items():
        if value:
            raise UsageError(Problem(f"{option} is for {of}, and {text} is {noun}", f"leave {option} out"))
