"""W5: startup time, measured on whole processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Workload

CONFIG = Path(__file__).parents[1] / "configs" / "linear.yaml"
COMMAND = Path(sys.executable).with_name("steprun")


def process(*arguments: str | Path) -> None:
    subprocess.run(arguments, stdout=subprocess.DEVNULL, check=True)


def help_page() -> None:
    process(COMMAND, "--help")


def whole_run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        process(COMMAND, CONFIG, "--runs-dir", folder)


def python_alone() -> None:
    process(sys.executable, "-c", "pass")


def torch_alone() -> None:
    process(sys.executable, "-c", "import torch")


def workloads() -> list[Workload]:
    return [
        Workload("W5", "steprun --help", "python -c pass", help_page, python_alone, reach=0.12, measure="difference"),
        Workload(
            "W5",
            "steprun configs/linear.yaml",
            "python -c 'import torch'",
            whole_run,
            torch_alone,
            reach=0.05,
            measure="difference",
        ),
    ]
