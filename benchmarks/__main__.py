"""`python -m benchmarks [NAME…] [--repeats N]`: measure the workloads and print one table."""

from __future__ import annotations

import argparse
import os
import platform
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in every process started

import torch

from benchmarks import checks, digits, linear, memory, parameter, startup, transformer
from benchmarks.measure import LEAST_REPEATS, measured, table

WORKLOADS = (
    linear.workloads,
    parameter.workloads,
    digits.workloads,
    transformer.workloads,
    startup.workloads,
    checks.workloads,
    memory.workloads,
)


def main() -> None:
    workloads = [workload for group in WORKLOADS for workload in group()]
    names = list(dict.fromkeys(workload.name for workload in workloads))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the workloads, print one table.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all without")
    parser.add_argument("--repeats", type=int, default=LEAST_REPEATS, help="times each side runs (default %(default)s)")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(names))
    if unknown:
        parser.error(f"there is no workload {', '.join(unknown)}; there are {', '.join(names)}")

    torch.set_num_threads(1)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{machine}; {versions}, one thread; medians of {arguments.repeats}\n")
    results = []
    for workload in workloads:
        if not arguments.names or workload.name in arguments.names:
            print(f"{workload.name}: {workload.what} …", file=sys.stderr, flush=True)
            results.append(measured(workload, arguments.repeats))
    print("\n".join(table(results)))


main()
