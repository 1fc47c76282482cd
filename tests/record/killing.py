"""Records rows in forked processes and kills each at a random moment; a program for `test_killed_runs`.

One process imports what is needed, then forks a recorder for each directory given, so that a kill costs milliseconds.
It prints, for each directory, how many rows the recorder had last said to be on disk.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

from runner.record.manifest import RunDescription
from runner.record.recorder import recording
from runner.record.rows import parts
from runner.record.rows.writer import RowWriter
from tests.forking import fork
from tests.record.building import LINEAR, linear_rows

DESCRIPTION = RunDescription(["steprun"], "linear", 0, "cpu", "float32", "eager")


def record(directory: Path, pipe: int) -> None:
    """Record without end, telling after each row how many are on disk."""
    parts.REWRITE_RATIO = 0
    RowWriter.__init__.__kwdefaults__.update(interval=0.0005, part_bytes=20_000, batch_rows=5)  # type: ignore[union-attr]
    with recording(directory, LINEAR, DESCRIPTION, "") as run:
        writer = run.write.__self__  # type: ignore[attr-defined]
        for row in linear_rows(10**9):
            run.write(row)
            os.write(pipe, b"%d\n" % writer.rows_on_disk)


def kill(directory: Path, lines: int) -> int:
    """Kill a recorder once it has told so many times; what it told last."""
    (directory / "rows").mkdir(parents=True)
    reader, pipe = os.pipe()
    child = fork()
    if child == 0:
        os.close(reader)
        record(directory, pipe)
        os._exit(0)
    os.close(pipe)
    with os.fdopen(reader) as told:
        last = [int(told.readline()) for _ in range(lines)][-1]
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        complete = [line for line in told.read().splitlines(keepends=True) if line.endswith("\n")]
        return int(complete[-1]) if complete else last


for index, argument in enumerate(sys.argv[1:]):
    print(kill(Path(argument), random.Random(index).randint(1, 2000)), flush=True)
