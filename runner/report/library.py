"""Finds the drawing library of the pages: uPlot, from a package of the extra `report`."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from runner.errors import Problem, UsageError

PACKAGE = "youplot"
"""The package on PyPI that has the files of uPlot, without dependencies of its own. Its code is never imported."""

SCRIPT, STYLE = "vendor/uplot.iife.min.js", "vendor/uplot.min.css"

REVIEWED = {
    SCRIPT: frozenset({"2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2"}),
    STYLE: frozenset({"df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"}),
}
"""The SHA-256 of files that were compared with uPlot's own releases on npm: 1.6.31."""

_INSTALL = "install it: `pip install 'steprun[report]'`"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Library:
    """The text of uPlot: a script, and a style sheet."""

    script: str
    style: str


def library() -> Library:
    """Read uPlot from the installed package.

    Raises:
        UsageError: the package is not installed, or its files are not those of a reviewed release of uPlot.
    """
    found = importlib.util.find_spec(PACKAGE)  # finds the package without running its code
    if found is None or not found.submodule_search_locations:
        raise UsageError(Problem("a report draws with uPlot, which is not installed", _INSTALL))
    folder = Path(next(iter(found.submodule_search_locations)))
    return Library(_read(folder, SCRIPT), _read(folder, STYLE))


def _read(folder: Path, name: str) -> str:
    try:
        with (folder / name).open("rb") as file:
            content = file.read(_MOST_BYTES)
    except OSError as error:
        message = f"a report draws with uPlot, and {folder / name} cannot be read: {error.strerror}"
        raise UsageError(Problem(message, _INSTALL)) from error
    if hashlib.sha256(content).hexdigest() not in REVIEWED[name]:
        message = f"{folder / name} is not of a release of uPlot that steprun has reviewed"
        raise UsageError(Problem(message, f"install the one it knows: `pip install '{PACKAGE}==1.0.0'`"))
    return content.decode()
