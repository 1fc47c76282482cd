"""`python -m benchmarks [NAME…] [--repeats N]` measures the workloads and prints one table.

With `--profile`, it prints instead where the time of a step goes.
"""

from __future__ import annotations

import argparse
import os
import platform

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in every child process

import torch

from benchmarks import peers, reports, sweep_peers
from benchmarks.measure import LEAST_REPEATS, table
from benchmarks.profile import PROFILED, operations, profile, report
from benchmarks.workloads import results, workloads


def main() -> None:
    names = [
        *dict.fromkeys([*(workload.name for workload in workloads()), *peers.NAMES, *sweep_peers.NAMES, *reports.NAMES])
    ]
    arguments = _arguments(names)
    chosen = arguments.names or (list(PROFILED) if arguments.profile else names)

    torch.set_num_threads(1)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    figures = "minima" if arguments.profile else "medians"
    print(f"{machine}; {versions}, one thread; {figures} of {arguments.repeats}\n")
    if arguments.profile:
        for name in chosen:
            parts, limit = profile(PROFILED[name], arguments.repeats)
            print("\n".join([*report(name, parts, limit, operations(PROFILED[name])), ""]))
        return
    print("\n".join(table(list(results(chosen, arguments.repeats)))))
    if not set(chosen).isdisjoint(peers.NAMES):
        print("".join(f"{line}\n" for line in peers.missing()), end="")
    if not set(chosen).isdisjoint(sweep_peers.NAMES):
        print("".join(f"{line}\n" for line in peers.missing(sweep_peers.PEERS)), end="")
    if not set(chosen).isdisjoint(reports.NAMES):
        print("".join(f"{line}\n" for line in reports.missing()), end="")


def _arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the workloads and print one table."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"workloads: {', '.join(names)}; all by default")
    parser.add_argument(
        "--repeats", type=int, default=LEAST_REPEATS, help="how often each side runs (default %(default)s)"
    )
    parser.add_argument(
        "--profile", action="store_true", help=f"print where the time of a step goes instead, for {', '.join(PROFILED)}"
    )
    arguments = parser.parse_args()
    known = list(PROFILED) if arguments.profile else names
    unknown = sorted(set(arguments.names) - set(known))
    if unknown:
        parser.error(f"there is no workload {', '.join(unknown)}; there are {', '.join(known)}")
    return arguments


if __name__ == "__main__":
    main()
