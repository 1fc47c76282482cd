"""Sweeps whose driver or one of whose workers is killed at a random moment, and resumed until they are finished.

    python -m tests.hostile.sweep_kills --times 100 --executors lanes inline processes

Each driver is a fork of this process, which has imported everything. Half of the sweeps halve. After each kill, the
directory must be readable; the next resume must run exactly the points that are not on disk; and the finished sweep
must have the table and the rows of one that was never killed. What is found instead is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.forking import fork

EXECUTORS = ("lanes", "inline", "processes", "ray")
PATIENCE = 300.0  # seconds that a child may take
KILLS = 5
"""The most kills of one sweep."""

SLICE = 0.25
"""The fraction of a sweep's whole time within which each kill falls; so a sweep is killed several times."""

CONFIG = """\
parameters: {w: {shape: [16], init: {normal: {std: 1}}}}
constants: {rate: 0.01}
expression: loss = (w ** 2).sum() + 0.01 * rand(1).sum()
optimizer: {sgd: {lr: rate}}
steps: [{repeat: {times: TIMES, steps: [train]}}]
log: {every: 10, tensors: full}
sweep:
  grid: {rate: [0.01, 0.02, 0.03], seed: range(8)}
  objective: {minimize: loss}
"""
HALVING = "  halving: {at: [TENTH, FIFTH], keep: 1/2}\n"


def config_text(executor: str, halved: bool) -> str:
    """A config whose sweep takes one to several seconds."""
    times = 2000 if executor == "lanes" else 300
    text = CONFIG + (HALVING if halved else "")
    return text.replace("TIMES", str(times)).replace("TENTH", str(times // 10)).replace("FIFTH", str(times // 5))


def warm() -> None:
    """Import what a sweep needs, so that a fork has all of it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
    import torch

    for name in ("runner.sweep.executors.work", "runner.sweep.running", "tests.sweep.test_running"):
        importlib.import_module(name)
    torch.set_num_threads(1)


# --- what a child does


def begin(folder: Path, executor: str, halved: bool) -> str:
    """Start a sweep without running it; returns its directory."""
    from runner.config import loads
    from runner.sweep.planning import plan_sweep
    from runner.sweep.running import start_sweep

    config = loads(config_text(executor, halved), name="killed.yaml")
    plan = plan_sweep(config, {})
    return str(start_sweep(config, plan, {}, folder, _how(executor)))


def go_on(directory: Path, executor: str) -> dict[str, Any]:
    """Resume a sweep; returns the points that were on disk, and those that have run."""
    from runner.sweep import running
    from runner.sweep.record import merging, part_files
    from tests.sweep.inline import Inline
    from tests.sweep.test_running import Seen

    part_files.FLUSH_SECONDS, running.TABLE_SECONDS, merging.MOST_PARTS = 0.02, 0.0, 4
    if executor == "inline":
        running.Processes = Inline  # type: ignore[assignment, misc]
    plan, how = running.resume_sweep(directory, _how(executor))
    seen = Seen()
    running.run_sweep(directory, plan, how, seen, retry=True)
    times = Counter((each.identity, each.rung) for each in seen.outcomes)  # those on disk come first, once
    return {"again": sum(count - 1 for count in times.values()), "ran": len(seen.started)}


def result(directory: Path) -> list[Any]:
    """The table of a finished sweep without times, and the digest of each point's rows."""
    import hashlib

    from runner.sweep.record.reading import open_sweep

    sweep = open_sweep(directory)
    table = sweep.table().drop_columns(["seconds"]).to_pylist()
    rows = [sweep.rows(row["point"]).combine_chunks() for row in table]
    digests = [hashlib.sha256(str(each.to_pydict()).encode()).hexdigest() for each in rows]
    return [table, digests]


def readable(directory: Path) -> int:
    """The number of points on disk; raises if something cannot be read."""
    from runner.sweep.record.parts import known_points, outcomes_on_disk
    from runner.sweep.record.reading import open_sweep
    from runner.sweep.record.table import read_table

    open_sweep(directory)
    read_table(directory)
    known_points(directory)
    return len(outcomes_on_disk(directory))


def _how(executor: str) -> Any:
    from runner.sweep.running import How

    lanes = "exact" if executor == "lanes" else "off"
    return How(jobs=2 if executor == "processes" else 1, lanes=lanes, on="ray" if executor == "ray" else "processes")


# --- processes


class Child:
    """A fork of this process that computes something."""

    def __init__(self, compute: Callable[[], Any], log: Path) -> None:
        self._reading, writing = os.pipe()
        self.pid = fork()
        if self.pid == 0:
            os.close(self._reading)
            _become(compute, writing, log)
        os.close(writing)

    def result(self, seconds: float = PATIENCE) -> Any:
        """What it computes; None if it has not ended in time, or was killed."""
        content = b""
        deadline = time.monotonic() + seconds
        while select.select([self._reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = os.read(self._reading, 1 << 16)
            if not part:
                break
            content += part
        else:
            return None
        return json.loads(content) if content.endswith(b"\n") else None

    def workers(self) -> list[int]:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            return [int(word) for word in text.split()]
        return []

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._reading)


def _become(compute: Callable[[], Any], writing: int, log: Path) -> None:
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        found = json.dumps(compute()).encode() + b"\n"
        while found:
            found = found[os.write(writing, found) :]
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(0)


# --- kills


def findings(seed: str, times: int, executors: Sequence[str]) -> Iterator[str]:
    """Kill sweeps; yields what is wrong in words, and at last what was done."""
    warm()
    draw = random.Random(seed)
    kills = {(executor, victim): 0 for executor in executors for victim in ("driver", "worker")}
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "log"
        computed = _computer(log)
        whole: dict[tuple[str, bool], tuple[Any, float]] = {}
        for number in itertools.count():
            if sum(kills.values()) >= times:
                break
            executor, halved = executors[number % len(executors)], bool(number // len(executors) % 2)
            if (executor, halved) not in whole:
                directory = Path(computed(partial(begin, Path(name) / "whole", executor, halved)))
                began = time.monotonic()
                assert computed(partial(go_on, directory, executor)) is not None, log.read_text()
                whole[executor, halved] = computed(partial(result, directory)), time.monotonic() - began
            expected, seconds = whole[executor, halved]
            directory = Path(computed(partial(begin, Path(name) / str(number), executor, halved)))
            for _ in range(KILLS):
                child = Child(partial(go_on, directory, executor), log)
                ended = child.result(draw.uniform(0, SLICE * seconds) if sum(kills.values()) < times else PATIENCE)
                if ended is None:
                    worker = draw.choice([None, *child.workers()]) if executor == "processes" else None
                    kills[executor, "driver" if worker is None else "worker"] += 1
                    if worker is not None:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(worker, signal.SIGKILL)
                        child.result()
                    child.end()
                    if computed(partial(readable, directory)) is None:
                        yield f"{executor}: {directory} cannot be read:\n{log.read_text()[-2000:]}"
                    continue
                child.end()
                if ended["again"]:
                    yield f"{executor}: {directory} ran {ended['again']} points again"
                break
            last = computed(partial(go_on, directory, executor))
            if last is None or last["again"]:
                yield f"{executor}: {directory} ended in {last}:\n{log.read_text()[-2000:]}"
            found = computed(partial(result, directory))
            if found != expected:
                yield f"{executor}, halved {halved}: another table: {_first(found, expected)}"
    yield ", ".join(f"{executor} {victim} {count}" for (executor, victim), count in kills.items() if count)


def _first(found: Any, expected: Any) -> str:
    """The first row that differs."""
    for one, other in zip(found[0], expected[0], strict=False):
        if one != other:
            return f"{ {key: (one.get(key), other.get(key)) for key in other if one.get(key) != other.get(key)} }"
    return f"{len(found[0])} rows" if found[0] != expected[0] else "the rows of a point"


def _computer(log: Path) -> Callable[[Callable[[], Any]], Any]:
    def computed(compute: Callable[[], Any]) -> Any:
        child = Child(compute, log)
        try:
            return child.result()
        finally:
            child.end()

    return computed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--executors", nargs="+", choices=EXECUTORS, default=list(EXECUTORS[:3]))
    parser.add_argument("--seed", default=str(time.time_ns()))
    given = parser.parse_args()
    print(f"seed {given.seed}")
    wrong, said = 0, ""
    for said in findings(given.seed, given.times, given.executors):
        wrong += 1
        print(said, flush=True)
    print(f"{wrong - 1} findings")
    return int(wrong > 1)


if __name__ == "__main__":
    sys.exit(main())
