"""Commands that write, killed at a random moment; what they leave is read, and gone on with.

    python -m tests.hostile.kills --times 1000

`steprun run`, `resume`, `snapshot` and `check --update` of small configs run in processes of their own, each forked
from one that has imported everything and has no second thread. Every other kill comes after a time, drawn uniformly
from what the command takes; the others come at a file operation, drawn uniformly from those that it makes. A folder of
temporary files in memory (`TMPDIR=/dev/shm`) makes them fast, for each write is synced to its disk.

Afterwards a run is readable, its rows are the first ones of a run that was not killed, bit for bit, and it resumes to
all of them; a snapshot is whole, the old one or the new, and can be updated, taken again and checked; no temporary file
stays, and no lock. What is found instead is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import itertools
import random
import select
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.hostile.commands import PATIENCE, command, fresh, measured
from tests.hostile.victims import victims, warm


def killed(
    times: int, seed: str, report: Callable[[str], None] = print
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Kill the commands in turn, so many times in all; gives the kills of each, those that came too late, and what is
    wrong."""
    hits, late, found = Counter[str](), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        every = victims(root)
        folder = root / "work"
        takes = {name: measured(victim.words, victim.prepare, folder) for name, victim in every.items()}
        for name, (seconds, operations) in takes.items():
            report(f"{name}: {seconds:.2f} s, {operations} file operations")
        for kill in itertools.count():
            if hits.total() >= times:
                break
            drawn = random.Random(f"{seed} {kill}")
            name = [*every][kill % len(every)]
            victim, (seconds, operations) = every[name], takes[name]
            fresh(folder, victim.prepare)
            by_operation = kill // len(every) % 2 == 1
            at = drawn.randrange(1, operations + 1) if by_operation else None
            after = PATIENCE if by_operation else drawn.uniform(0, seconds)
            with command(victim.words, folder, kill_at=at) as process:
                ended = bool(select.select([process], [], [], after)[0])
            (late if ended and not by_operation else hits)[name] += 1
            for wrong in victim.check(folder):
                found[f"{name}: {wrong}"] += 1
                report(f"kill {kill} at {f'operation {at}' if by_operation else f'{after:.4f} s'}, {name}: {wrong}")
    return hits, late, found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", default=str(time.time_ns()))
    given = parser.parse_args(arguments)
    print(f"seed {given.seed}", flush=True)
    warm()
    hits, late, found = killed(given.times, given.seed, lambda text: print(text, flush=True))
    for name, count in hits.items():
        print(f"{name}: killed {count:,} times, ended before {late[name]:,} times")
    print(f"{hits.total():,} kills, {found.total():,} findings")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
