"""Runs every case of a folder under an engine that compiles `train` steps, and prints what differs or is refused.

python -m tests.conformance.engines xla FOLDER [NAME ...]

A case takes a second or more, so this is no test. With names it runs the cases whose identity contains one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

import runner

from .attempts import Attempt, attempts_in
from .comparison import differences
from .expressions import UnsayableError
from .running import run_job
from .trained import trained_job


def outcome_under(engine: str, attempt: Attempt) -> tuple[str, str]:
    """What comes of an attempt, `pass`, `differs`, `refused` or `not stated`, and why."""
    tolerance = attempt.tolerances()
    if tolerance is None or attempt.optimizer == "nothing":
        return "not stated", ""
    try:
        with tempfile.TemporaryDirectory() as folder:
            job = trained_job(attempt.case, attempt.dtype, attempt.optimizer, engine)
            missed = differences(run_job(job, Path(folder)), attempt.expected(), tolerance)
    except UnsayableError as reason:
        return "refused", str(reason)
    except runner.SteprunError as error:
        return "refused", error.problems[0].message
    return ("differs", str(missed[0])) if missed else ("pass", "")


def _chosen(folder: Path, names: list[str]) -> Iterator[Attempt]:
    for attempt in attempts_in(folder):
        if not names or any(name in attempt.case.id for name in names):
            yield attempt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=["eager", "compile", "xla", "auto"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    for attempt in _chosen(given.folder, given.names):
        kind, reason = outcome_under(given.engine, attempt)
        counts[kind] += 1
        if reason:
            print(f"{attempt}: {kind}: {reason}", flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in counts.most_common()))


if __name__ == "__main__":
    main()
