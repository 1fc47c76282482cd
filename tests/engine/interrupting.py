"""Runs that are interrupted while a compiler works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import runner
from runner.cli.input.interruption import PATIENCE
from runner.errors import Problem

_PROGRAM = """\
import ctypes, sys
from runner.cli.main import entry
import {module}

def compile(self, *given):  # stands for a long compilation: Python sees no signal in it
    print("compiling", file=sys.stderr, flush=True)
    while True:
        ctypes.CDLL(None).sleep(60)

{module}.{method} = compile
sys.argv = ["steprun", "-q", sys.argv[1], "--runs-dir", "runs"]
entry()
"""


def interrupted_while_compiling(path: Path, module: str, method: str) -> Path:
    """Runs a config in a process, sends SIGINT while it compiles, and returns the run directory below `runs`.

    Args:
        method: what compiles, by its name in the module.
    """
    command = [sys.executable, "-c", _PROGRAM.format(module=module, method=method), str(path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        begun = []
        while "compiling\n" not in begun:
            begun.append(process.stderr.readline())
            assert begun[-1], begun
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == 130, told
    (directory,) = (each for each in Path("runs", path.stem).iterdir() if each.is_dir() and not each.is_symlink())
    assert f"`steprun resume {directory}` goes on" in told
    manifest = runner.open_run(directory).manifest
    assert manifest["status"] == "interrupted"
    assert manifest["failure"] == {
        "error": "KeyboardInterrupt",
        "problems": [Problem("interrupted inside a step").to_json()],
    }
    assert manifest["seconds"] >= PATIENCE
    assert "digest" in json.loads((directory / "run.json").read_text(encoding="utf-8"))
    return directory
