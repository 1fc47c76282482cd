"""Resolves command-line paths to configs and their snapshots."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from runner.compare.snapshots.checking import Target
from runner.compare.snapshots.model import FOLDER, SUFFIX, snapshot_path
from runner.errors import Problem, UsageError


def collect(paths: Iterable[str]) -> list[Target]:
    """Every target that the paths name, once: a config, a snapshot, or a folder with all snapshots below it.

    Raises:
        UsageError: a path does not exist, a folder has no snapshot, or two configs share one snapshot.
        ConfigError: a config is not valid, so its name is unknown.
    """
    found: dict[str, Target] = {}
    for path in paths:
        for target in _targets(path):
            known = found.setdefault(os.path.realpath(target.snapshot), target)
            if known.config and target.config and not os.path.samefile(known.config, target.config):
                message = f"{known.config} and {target.config} have one snapshot, {target.snapshot}"
                raise UsageError(Problem(message, "give one of the two configs a `name` of its own"))
    return list(found.values())


def _targets(path: str) -> Iterator[Target]:
    if os.path.isdir(path):
        snapshots = sorted(_below(path))
        if not snapshots:
            hint = "`steprun snapshot CONFIG` takes one"
            raise UsageError(Problem(f"there is no snapshot below {path}", hint))
        yield from (Target(None, snapshot) for snapshot in snapshots)
    elif not os.path.exists(path):
        hint = "name configs, or a folder with snapshots"
        if path.isdecimal():
            hint = f"write `--uncertainty={path}`, in one word"
        raise UsageError(Problem(f"there is no file or folder {path}", hint))
    elif Path(path).parent.name == FOLDER and Path(path).parent.parent != Path(path).parent:
        yield Target(None, path)
    else:
        yield target_of(path)


def target_of(config: str) -> Target:
    """The target of a config file: the config and the path of its snapshot.

    Raises:
        ConfigError: the config is not valid.
    """
    from runner.config import load

    return Target(config, str(snapshot_path(Path(config), str(load(config).name))))


def _below(folder: str) -> Iterator[str]:
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if os.path.basename(os.path.abspath(where)) == FOLDER:
            yield from (os.path.normpath(os.path.join(where, name)) for name in files if name.endswith(SUFFIX))
