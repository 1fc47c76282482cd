"""`python -m benchmarks [NAME…] [--repeats N]`: measure the workloads and print one table.

With `--profile`, tell instead where the time of a step goes.
"""

from __future__ import annotations

import argparse
import atexit
import os
import platform
import shutil
import sys
import tempfile

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in every process started
os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="steprun-benchmarks-")  # empty at first

import torch

from benchmarks import checks, compiled, digits, linear, memory, parameter, peers, startup, transformer
from benchmarks.measure import LEAST_REPEATS, measured, table
from benchmarks.profile import PROFILED, operations, profile, report

WORKLOADS = (
    linear.workloads,
    parameter.workloads,
    digits.workloads,
    transformer.workloads,
    compiled.workloads,
    startup.workloads,
    checks.workloads,
    memory.workloads,
    peers.workloads,
)


def main() -> None:
    atexit.register(shutil.rmtree, os.environ["TORCHINDUCTOR_CACHE_DIR"])
    workloads = [workload for group in WORKLOADS for workload in group()]
    names = [*dict.fromkeys([*(workload.name for workload in workloads), *peers.NAMES])]
    arguments = _arguments(names)
    chosen = arguments.names or (list(PROFILED) if arguments.profile else names)

    torch.set_num_threads(1)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    figures = "the least" if arguments.profile else "medians"
    print(f"{machine}; {versions}, one thread; {figures} of {arguments.repeats}\n")
    if arguments.profile:
        for name in chosen:
            parts, limit = profile(PROFILED[name], arguments.repeats)
            print("\n".join([*report(name, parts, limit, operations(PROFILED[name])), ""]))
        return
    results = []
    for workload in workloads:
        if workload.name in chosen:
            print(f"{workload.name}: {workload.what} …", file=sys.stderr, flush=True)
            results.append(measured(workload, arguments.repeats))
    print("\n".join(table(results)))
    if not set(chosen).isdisjoint(peers.NAMES):
        for line in peers.missing():
            print(line)


def _arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the workloads, print one table.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all without")
    parser.add_argument("--repeats", type=int, default=LEAST_REPEATS, help="times each side runs (default %(default)s)")
    parser.add_argument(
        "--profile", action="store_true", help=f"tell instead where a step's time goes, of {', '.join(PROFILED)}"
    )
    arguments = parser.parse_args()
    known = list(PROFILED) if arguments.profile else names
    unknown = sorted(set(arguments.names) - set(known))
    if unknown:
        parser.error(f"there is no workload {', '.join(unknown)}; there are {', '.join(known)}")
    return arguments


main()
