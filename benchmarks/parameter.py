"""W2: the notebook's 512 x 512 parameter for 300 steps, two MiB logged a step."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet

import runner
from benchmarks.measure import Workload

STEPS = 300
WRITING = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": False,
    "write_statistics": False,
    "data_page_version": "2.0",
}
"""What makes pyarrow write such a table fastest."""
CONFIG = Path(__file__).parents[1] / "configs" / "parameter.yaml"


def steprun(*overrides: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runner.run(CONFIG, overrides=[f"steps={STEPS}", *overrides], runs_dir=folder)


@functools.cache
def recorded_table() -> pyarrow.Table:
    """The table that one such run records, in memory as one chunk a column."""
    folder = tempfile.mkdtemp()
    try:
        run = runner.run(CONFIG, overrides=[f"steps={STEPS}"], runs_dir=folder)
        parts = sorted((run.path / "rows").glob("*.parquet"))
        return pyarrow.concat_tables([pyarrow.parquet.read_table(part) for part in parts]).combine_chunks()
    finally:
        shutil.rmtree(folder)


def pyarrow_alone() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pyarrow.parquet.write_table(recorded_table(), Path(folder) / "rows.parquet", **WRITING)


def workloads() -> list[Workload]:
    what = f"configs/parameter.yaml, {STEPS} steps, full log"
    return [
        Workload("W2", what, "pyarrow alone writing that table", steprun, pyarrow_alone, reach=1.25, steps=STEPS),
        Workload(
            "W2",
            what,
            "the same run, `tensors: none`",
            steprun,
            functools.partial(steprun, "log.tensors=none"),
            reach=1.6,
            steps=STEPS,
        ),
    ]
