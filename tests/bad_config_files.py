"""The configs of `bad_configs`, by topic, and the error of each.

A file `bad_configs/TOPIC/NAME.yaml` is compiled from within its folder, and `NAME.txt` beside it holds the whole error.
Lines `# override: TEXT` in it are overrides.
"""

from __future__ import annotations

import contextlib
from functools import cache
from pathlib import Path

import pytest

import runner
from runner.errors import SteprunError

FOLDER = Path(__file__).parent / "bad_configs"
BAD_CONFIGS = sorted(FOLDER.glob("*/*.yaml"))
OVERRIDE = "# override: "


@cache
def refused(path: Path) -> SteprunError:
    """The error of a bad config, found while it is loaded or compiled; places are relative to its folder."""
    lines = path.read_text(encoding="utf-8").splitlines()
    overrides = [line.removeprefix(OVERRIDE) for line in lines if line.startswith(OVERRIDE)]
    with contextlib.chdir(path.parent), pytest.raises(SteprunError, match=r".") as caught:
        runner.compile(runner.load(path.name, overrides))
    return caught.value
