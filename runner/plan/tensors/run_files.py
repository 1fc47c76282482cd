"""Finds the file with the weights that `from_run` names. Nothing in a run directory is followed or trusted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.config.files.run_paths import (
    LATEST,
    MANIFEST_FILE,
    SWEEP_MANIFEST,
    fields_digest,
    is_run,
    resolved_run,
    resolved_sweep,
)
from runner.config.files.safe_files import LARGEST_JSON, Folder, parse_json
from runner.config.record_models import FromRun
from runner.errors import did_you_mean, listing
from runner.plan.data.arrays import safetensors_contents
from runner.plan.data.sandbox import FileFault, is_allowed, locate, permitted
from runner.text import steprun_command

WEIGHTS_FILE = "weights.safetensors"
BEST_FILE = "weights-best.safetensors"
FITTED_FILE = "fitted.safetensors"
"""The tensors that a run computed from data."""
CHECKPOINTS_FOLDER = "checkpoints"
LAST, BEST = "last", "best"
"""The weights at the end of a run, and the best ones. `last` is also the tag of the state that a run keeps."""

KEPT_SUFFIX = ".last.json"
"""The end of the names of checkpoints as they were when a run kept its state; no tag has a dot."""

_MOST_DIGITS = 18
"""The most digits of the number of a point: Python refuses to read integers of thousands of digits."""

RESTORE = "restore the file from a copy, or run the config again"

_FILES = {LAST: WEIGHTS_FILE, BEST: BEST_FILE}
_SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class Weights:
    """A file with weights.

    Attributes:
        path: the file, with links resolved.
        name: its name in messages.
        directory: the run directory; None for a weights file.
        checkpoint: the content of the checkpoint that the file belongs to, if it does.
    """

    path: Path
    name: str
    directory: Path | None
    checkpoint: dict[str, Any] | None = None


def find_weights(declared: FromRun, folder: Path, allowed: Iterable[Path], *, own: bool = False) -> Weights:
    """The file with the weights of a declaration.

    Args:
        folder: the folder of the file with the declaration.
        allowed: folders from which reading is allowed, besides `folder`.
        own: whether only a file will do that the run wrote itself; otherwise one without a digest will, too.
    Raises:
        FileFault: the run is outside these folders or is missing, or has no such weights.
    """
    allowed = tuple(allowed)
    if declared.run.lower().endswith(_SUFFIX):
        return _weights_file(declared, locate(declared.run, folder, allowed))
    directory = _run_directory(declared.run, folder, allowed)
    at = declared.at or LAST
    sweep = directory.parent.parent
    name = f"{directory.parent.name}/{directory.name}"
    if is_run(sweep, SWEEP_MANIFEST):
        name = f"{sweep.parent.name}/{sweep.name}#{directory.name}"
    try:
        with Folder(directory) as run:
            file = None if declared.optimizer else _FILES.get(at)
            if file is not None and (at == LAST or run.holds(file)):
                _check_is_of_run(run, file, f"{name}/{file}", own, pinned=declared.sha256 is not None)
                return Weights(directory / file, f"{name}/{file}", directory)
            return _of_checkpoint(run, directory, name, at, declared.optimizer)
    except FileNotFoundError:
        hint = "a run writes them when it ends, unless it says `log: {weights: false}`"
        tags = _tags(directory)
        hint = (
            f"{hint}; it has the {'checkpoint' if len(tags) == 1 else 'checkpoints'} {listing(tags)}" if tags else hint
        )
        raise FileFault(f"{name} kept no weights", hint) from None
    except OSError as error:
        raise FileFault(f"the weights of {name} cannot be read: {error.strerror}", "restore the run") from error


def _check_is_of_run(run: Folder, file: str, shown: str, own: bool, *, pinned: bool) -> None:
    """Check that a weights file was written by a run of the config that its directory has.

    Args:
        pinned: whether the declaration has a digest of the file, which is compared with what is read.
    Raises:
        FileFault: its header has the digest of another config, or of none although it must, or its bytes are not
            those that the run wrote.
        FileNotFoundError: there is none.
    """
    run.open(file).close()
    try:
        manifest = parse_json(run.read(MANIFEST_FILE, LARGEST_JSON))
        fields, digests = manifest["config_fields"], manifest.get("weights", {})
        expected = digests.get(file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # a manifest that is damaged is reported where it is read
    damaged = None if expected is None or pinned else _changed(run, file, shown, expected)
    try:
        with run.open(file) as opened:
            _, _, metadata = safetensors_contents(opened, os.fstat(opened.fileno()).st_size, shown)
    except FileFault as fault:
        raise damaged or fault from None
    found = metadata.get("config")
    if found != fields_digest(fields) and (own or found is not None):
        raise FileFault(f"{shown} was not written by this run", RESTORE)
    if damaged is not None:
        raise damaged


def _changed(run: Folder, file: str, shown: str, expected: str) -> FileFault | None:
    with run.open(file) as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    return None if found == expected else FileFault(f"{shown} is damaged: its digest does not match", RESTORE)


def rows_of(directory: Path) -> int | None:
    """The number of rows of a run when it wrote its weights; None if it left none."""
    try:
        with Folder(directory) as run, run.open(WEIGHTS_FILE) as file:
            _, _, metadata = safetensors_contents(file, os.fstat(file.fileno()).st_size, WEIGHTS_FILE)
        return int(metadata["row"]) + 1
    except (OSError, KeyError, ValueError, FileFault):
        return None


def _weights_file(declared: FromRun, path: Path) -> Weights:
    if declared.at != LAST:
        message = f"{path.name} is a weights file, which has no `{declared.at}`"
        raise FileFault(message, "remove `at`, or name a run directory", field="at")
    if declared.optimizer:
        message = f"{path.name} is a weights file, which has no state of optimizers"
        raise FileFault(message, "remove `optimizer`, or name a run directory", field="optimizer")
    return Weights(path, path.name, None)


def _run_directory(text: str, folder: Path, allowed: tuple[Path, ...]) -> Path:
    path = permitted(text, folder, allowed)
    directory = resolved_run(path)
    if not is_allowed(directory, (folder, *allowed)):
        hint = "move it below the config's own folder, or allow its folder with --allow FOLDER"
        raise FileFault(f"`{text}` is outside the folders that this config may read", hint)
    if is_run(directory):
        return directory
    _check_is_no_sweep(text, folder, allowed)
    if path.name == LATEST and path.parent.is_dir():
        raise FileFault(f"there is no run in {Path(text).parent}", "record one, or name another folder")
    if not path.exists():
        raise FileFault(f"there is no run {text}", "`steprun runs` lists the recorded runs")
    raise FileFault(f"{text} is not a run directory: it has no run.json", "write the path of a run, or of its weights")


def _check_is_no_sweep(text: str, folder: Path, allowed: tuple[Path, ...]) -> None:
    before, sign, point = text.rpartition("#")
    of_point = bool(sign) and point.isdecimal()
    sweep = resolved_sweep(permitted(before if of_point else text, folder, allowed))
    if is_run(sweep, SWEEP_MANIFEST) and is_allowed(sweep, (folder, *allowed)):
        points = _points(sweep)
        if of_point and points and (len(point) > _MOST_DIGITS or int(point) >= points):
            raise FileFault(f"{before} has no point {point}", f"its points are 0 to {points - 1}")
        what = "a point of a sweep" if of_point else "a sweep"
        run = text if of_point else f"{text}#0"
        hint = f"record a run with `{steprun_command('run', run)}`, and name that one"
        raise FileFault(f"{text} is {what}, not a run", hint)


def _points(sweep: Path) -> int | None:
    """The number of points of a sweep; None if its manifest does not say it."""
    try:
        with Folder(sweep) as folder:
            points = parse_json(folder.read(SWEEP_MANIFEST, LARGEST_JSON))["points"]
    except (OSError, ValueError, KeyError, TypeError, FileFault):
        return None
    return points if type(points) is int and points > 0 else None


def _tags(directory: Path) -> list[str]:
    """The tags of the checkpoints of a run that its config names."""
    try:
        with Folder(directory) as run, run.folder(CHECKPOINTS_FOLDER) as folder:
            return [tag for tag in _tags_in(folder) if tag != LAST and not tag.isdigit()]
    except OSError:
        return []


def _tags_in(folder: Folder) -> list[str]:
    return [file.removesuffix(".json") for file in folder.names(".json") if not file.endswith(KEPT_SUFFIX)]


def _of_checkpoint(run: Folder, directory: Path, name: str, at: str, optimizer: bool) -> Weights:
    """The weights in the checkpoint with a tag."""
    try:
        with run.folder(CHECKPOINTS_FOLDER) as folder:
            tags = _tags_in(folder)
            if at in tags:
                content = _checkpoint(folder, f"{at}.json", f"{name}/{CHECKPOINTS_FOLDER}/{at}.json")
                file = content["tensors"]
                folder.open(file).close()
                path = directory / CHECKPOINTS_FOLDER / file
                return Weights(path, f"{name}/{CHECKPOINTS_FOLDER}/{file}", directory, content)
    except FileNotFoundError:
        tags = []
    field = "optimizer" if optimizer and at in _FILES else "at"
    if at == LAST:
        why = "a run keeps its state when its last loop ends, unless `log: {weights: false}`"
        raise FileFault(f"{name} kept no state", f"name a checkpoint under `at`; {why}", field=field)
    last = [LAST] if optimizer or run.holds(WEIGHTS_FILE) else []
    found = [*last, *(tag for tag in tags if tag != LAST and not tag.isdigit())]
    hint = did_you_mean(at, found, f"it has {listing(found)}" if found else "it has none yet")
    if at == BEST and "#" in name:
        hint = f"a point keeps its last weights alone; `steprun run SWEEP#{directory.name}` records it as a run"
    raise FileFault(f"{name} has no checkpoint `{at}`", hint, field=field)


def _checkpoint(folder: Folder, file: str, shown: str) -> dict[str, Any]:
    """The content of a checkpoint's JSON file, if its digest matches."""
    try:
        content = parse_json(folder.read(file, LARGEST_JSON))
    except ValueError as error:
        raise FileFault(f"{shown} is damaged: it is not JSON", "name another checkpoint") from error
    digest = content.pop("digest", None) if isinstance(content, dict) else None
    if digest is None or digest != hashlib.sha256(json.dumps(content).encode()).hexdigest():
        raise FileFault(f"{shown} is damaged: its digest does not match", "name another checkpoint")
    if not isinstance(content.get("tensors"), str):
        raise FileFault(f"{shown} is damaged: it names no tensors", "name another checkpoint")
    found: dict[str, Any] = content
    return found
