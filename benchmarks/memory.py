"""W7: the peak memory of a long run of W1 and of a short one, each in its own process."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from benchmarks.linear import CONFIG
from benchmarks.measure import Workload

LONG, SHORT = 1_000_000, 1_000
PROGRAM = """
import sys, runner
runner.run(sys.argv[1], overrides=["steps=" + sys.argv[2]], runs_dir=sys.argv[3])
print(open("/proc/self/status").read())
"""


def peak(steps: int) -> int:
    """Returns the peak memory of a run in bytes: the high-water mark of the resident set, as Linux reports it."""
    with tempfile.TemporaryDirectory() as folder:
        return peak_of([sys.executable, "-c", PROGRAM, str(CONFIG), str(steps), folder])


def peak_of(command: Sequence[str]) -> int:
    """Returns the peak memory of a process in bytes; the process prints its own status at its end."""
    status = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kibibytes = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    assert kibibytes is not None, status
    return int(kibibytes[1]) << 10


def workloads() -> list[Workload]:
    what = f"configs/linear.yaml, {LONG:,} `train` steps, every gradient and weight to Parquet"
    long, short = functools.partial(peak, LONG), functools.partial(peak, SHORT)
    return [Workload("W7", what, f"{SHORT:,} steps", long, short, reach=1.10, measure="memory")]
