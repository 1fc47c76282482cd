"""Compiles the configs of `bad_configs`, and returns their errors.

`bad_configs/TOPIC/NAME.yaml` is a config, and `NAME.txt` is the whole text of its error. The working directory is the
folder of the config. Each line `# override: TEXT` of the config is an override.
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
    """Loads and compiles a bad config, and returns the error; its places are relative to the folder of the config."""
    lines = path.read_text(encoding="utf-8").splitlines()
    overrides = [line.removeprefix(OVERRIDE) for line in lines if line.startswith(OVERRIDE)]
    with contextlib.chdir(path.parent), pytest.raises(SteprunError, match=r".") as caught:
        runner.compile(runner.load(path.name, overrides))
    return caught.value
