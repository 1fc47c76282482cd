"""Bits flipped in every kind of file that steprun reads; for as long as a person lets it run.

    python -m tests.hostile.bit_flips --minutes 60

A flip is noticed, by a fault that names the file, or changes nothing that is read, or, in a file without a digest of
its own, is another valid reading. What is found is printed, and the exit code is 1: another exception, a crash, a hang,
a fault that names no file, and another number than the sound file gives where a digest or a checksum is there.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import safetensors.numpy
import torch
from torch import Tensor

import runner
from runner.compare.numbers.ulp import same_bits
from runner.compare.snapshots.checking import Request, Target, check
from runner.engine import initial_state
from runner.engine.rows import Row
from runner.errors import SteprunError
from runner.record.directory import create_run_directory
from runner.record.resuming import resume
from runner.record.running import run_recorded
from tests.forking import fork
from tests.hostile.children import Finding, tried
from tests.hostile.flipped_sweeps import files_of, sweeps

SECONDS = 5
ROOM = 4 << 30
WORK = "work"
RUN = """\
name: linear
seed: 7
parameters: {x: {shape: [3], init: normal}, b: {shape: [12, 12], init: normal}, u: {shape: [40, 40], init: normal}}
constants: {d: {file: data.npy}}
expression: |
  n = x[:iteration]
  big = u @ u
  sign = x > 0
  loss = (x ** 2).sum() + (dropout(b, 0.5, training) ** 2).sum() + n.sum() + d.sum() + big.mean() + sign.sum()
optimizer: {adam: {lr: 0.1}}
steps: [{repeat: {times: 6, steps: [train, {checkpoint: , every: 2}]}}]
log: {state: true}
"""
SNAPSHOT = """\
name: kept
parameters: {w: {shape: [9, 9], init: {normal: {std: 0.5}}}}
constants: {x: {file: points.csv, dtype: float32}}
expression: loss = ((x @ w) ** 2).mean()
optimizer: {adam: {lr: 0.01}}
steps: 3
snapshot: {uncertainty: {runs: 3}, restart: [1]}
"""
DATA = """\
name: read
parameters: {w: 1.0}
constants: {x: {file: "%s"}}
expression: loss = w * x.to(float64).sum()
optimizer: {sgd: {lr: 0.1}}
steps: [backward]
"""
WORDS = NOTICED, SAME, OTHER = "noticed", "the same", "another reading"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file, and what comes of a folder in which one of it has flipped bits."""

    folder: Path  # with all that is needed to read it
    files: tuple[str, ...]  # by their path in the folder
    read: Callable[[Path, Path], str]  # the folder and the file; gives one of the three words, or what is wrong


def _fault(error: SteprunError, *parts: str) -> str:
    """Whether a fault names one of the files that it may be of."""
    return NOTICED if any(part in str(error) for part in parts) else f"a fault that names no file: {error}"


# --- runs


def _same_rows(found: runner.Run, whole: pyarrow.Table) -> bool:
    return bool(found.to_arrow().equals(whole.slice(0, len(found))))


def _reader(whole: pyarrow.Table, *, guarded: bool) -> Callable[[Path, Path], str]:
    """Opens and reads a run directory, and goes on with it.

    Args:
        whole: the rows of a run that was never stopped.
        guarded: whether the file that is flipped has a digest; the last part of a killed run has none yet.
    """

    def read(folder: Path, path: Path) -> str:
        run = folder / "run"
        parts = (path.name, str(run), "data.npy")  # whose digest is in `run.json`: either may have been flipped
        try:
            opened = runner.open_run(run)
            for _ in opened.rows():
                pass
            for column in opened.columns:
                opened.values(column.name)
            as_recorded = _same_rows(opened, whole)
            if guarded and not as_recorded:
                return "other rows than were recorded"
            done = resume(run, allowed_folders=[folder])
            goes_on = len(done) == len(whole) and _same_rows(done, whole)
        except SteprunError as error:
            return _fault(error, *parts)
        if as_recorded and not goes_on:
            return "it goes on to other rows"
        return SAME if goes_on else OTHER

    return read


def _stopped(folder: Path, how: str) -> Path:
    """A run that was interrupted or killed after some rows, with its checkpoints."""
    plan = runner.compile(runner.load(folder / "linear.yaml"))
    directory = create_run_directory(folder / "runs", "linear", datetime(2026, 1, 1))
    seen: list[int] = []

    def see(row: Row) -> None:
        seen.append(row.number)
        if how == "killed" and len(seen) == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    child = fork()
    if child == 0:
        try:
            run_recorded(plan, directory, see=see, stop=lambda: how == "interrupted" and len(seen) == 6)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return directory


# --- snapshots


def _checked(folder: Path, path: Path) -> str:
    outcome = check(Target(str(folder / "kept.yaml"), str(folder / "snapshots" / "kept.yaml")), Request())
    text = " ".join((outcome.name, *outcome.lines))
    if outcome.status == "holds":
        return SAME
    if outcome.status not in ("damaged", "differs", "stale", "orphan", "failed"):
        return f"{outcome.status}: {text}"
    return NOTICED if "kept" in text else f"a fault that names no file: {text}"


# --- data files


def _taken(sound: Mapping[str, Tensor]) -> Callable[[Path, Path], str]:
    """Plans a config that reads a file, and takes its values."""

    def read(folder: Path, path: Path) -> str:
        try:
            plan = runner.compile(runner.loads(DATA % path.name, base=folder))
            values = initial_state(plan).constants["x"]
        except SteprunError as error:
            return _fault(error, path.name)
        return SAME if same_bits(values, sound[path.name]) else OTHER

    return read


def _write_data(folder: Path) -> tuple[str, ...]:
    """Data files of every format, with the same numbers in various layouts."""
    numbers = numpy.random.default_rng(0).standard_normal((40, 5))
    table = pyarrow.table({"a": numbers[:, 0], "b": numbers[:, 1].astype("float32")})
    numpy.save(folder / "plain.npy", numbers)
    numpy.save(folder / "fortran.npy", numpy.asfortranarray(numbers.astype(">f4")))
    numpy.save(folder / "integers.npy", numpy.arange(60, dtype="uint16").reshape(3, 4, 5))
    numpy.savez(folder / "stored.npz", x=numbers)
    numpy.savez_compressed(folder / "packed.npz", x=numbers)
    safetensors.numpy.save_file({"x": numbers}, folder / "tensors.safetensors")
    for name, comma in (("points.csv", ","), ("points.tsv", "\t")):
        rows = [comma.join(map(repr, row.tolist())) for row in numbers[:8]]
        (folder / name).write_text("\n".join([comma.join("abcde"), *rows]) + "\n")
    options = {"write_page_checksum": True, "use_dictionary": False}
    pyarrow.parquet.write_table(table, folder / "plain.parquet", compression="none", **options)
    pyarrow.parquet.write_table(table, folder / "packed.parquet", compression="zstd", row_group_size=16, **options)
    pyarrow.parquet.write_table(table, folder / "unguarded.parquet", compression="snappy")
    return tuple(sorted(path.name for path in folder.iterdir() if path.suffix in _SUFFIXES))


_SUFFIXES = (".npy", ".npz", ".safetensors", ".csv", ".tsv", ".parquet")
PAGE_HEADER = 120
"""Bytes at the start of a column of a Parquet file that may be the header of its page, which has no checksum."""


def _has_checksum(path: Path, at: int) -> bool:
    """Whether a byte of a data file is one that a checksum of the file guards."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            entry = archive.infolist()[0]
            return entry.header_offset + 200 <= at < entry.header_offset + entry.compress_size
    if path.suffix == ".parquet" and path.stem != "unguarded":
        metadata = pyarrow.parquet.read_metadata(path)
        for group in range(metadata.num_row_groups):
            for position in range(metadata.num_columns):
                column = metadata.row_group(group).column(position)
                start = column.data_page_offset
                if start + PAGE_HEADER <= at < start + column.total_compressed_size:
                    return True
    return False


# --- trying


def made(folder: Path) -> dict[str, Kind]:
    """Every kind of file, made in a folder; each is read there, so that paths that a run has recorded stay right."""
    work = folder / WORK
    work.mkdir()
    (work / "linear.yaml").write_text(RUN)
    numpy.save(work / "data.npy", numpy.linspace(0.0, 1.0, 10, dtype="float32"))
    whole = runner.run(work / "linear.yaml", runs_dir=folder / "sound").to_arrow()
    kinds: dict[str, Kind] = {}
    for how in ("interrupted", "killed"):
        case = folder / how
        shutil.copytree(_stopped(work, how), case / "run")
        shutil.copy(work / "data.npy", case / "data.npy")
        names = sorted(str(path.relative_to(case)) for path in case.rglob("*") if path.is_file())
        open_part = [name for name in names if name.endswith(".parquet")][-1:] if how == "killed" else []
        for name in names:
            kind = "data of a run" if name == "data.npy" else Path(name).name
            kind = f"checkpoint{Path(name).suffix}" if "checkpoints" in name else kind
            reader = _reader(whole, guarded=name not in open_part)
            before = kinds.get(f"{how}: {kind}", Kind(folder=case, files=(), read=reader))
            kinds[f"{how}: {kind}"] = replace(before, files=(*before.files, name))
    case = folder / "snapshot"
    case.mkdir()
    (case / "kept.yaml").write_text(SNAPSHOT)
    numpy.savetxt(case / "points.csv", numpy.eye(9), delimiter=",", header="a,b,c,d,e,f,g,h,i", comments="")
    target = Target(str(case / "kept.yaml"), str(case / "snapshots" / "kept.yaml"))
    assert check(target, Request("new")).status == "written"
    for path in sorted((case / "snapshots").iterdir()):
        state = f'state: "{path.name}"' in (case / "snapshots" / "kept.yaml").read_text()
        kind = "text" if path.suffix == ".yaml" else "state" if state else "tensors"
        kinds[f"snapshot: {kind}"] = Kind(case, (f"snapshots/{path.name}",), _checked)
    case = folder / "data"
    case.mkdir()
    names = _write_data(case)
    sound = {name: initial_state(_reading(case, name)).constants["x"] for name in names}
    kinds |= {f"data: {name}": Kind(case, (name,), _taken(sound)) for name in names}
    sources = folder / "swept"
    sources.mkdir()
    for name, case, reader in sweeps(sources):
        kinds |= {f"{name}: {kind}": Kind(case, tuple(files), reader) for kind, files in files_of(case)}
    for name, kind in kinds.items():
        shutil.rmtree(work)
        shutil.copytree(kind.folder, work)
        assert kind.read(work, work / kind.files[0]) == SAME, name
    return kinds


def _reading(folder: Path, name: str) -> runner.Plan:
    return runner.compile(runner.loads(DATA % name, base=folder))


class Tally:
    """How often each word came of a kind of file, counted across processes."""

    def __init__(self, kinds: int) -> None:
        self._memory = mmap.mmap(-1, max(1, kinds) * len(WORDS) * 8)
        self.counts = numpy.frombuffer(self._memory, dtype=numpy.int64).reshape(kinds, len(WORDS))

    def add(self, kind: int, word: str) -> None:
        self.counts[kind, WORDS.index(word)] += 1


def attempt(kind: Kind, work: Path, case: str) -> str:
    """Flip a bit, or a few, of a file of a kind, and read it; gives what comes of it."""
    drawn = random.Random(case)
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(kind.folder, work)
    path = work / drawn.choice(kind.files)
    content = bytearray(path.read_bytes())
    flipped = [drawn.randrange(8 * len(content)) for _ in range(drawn.choice((1, 1, 1, 2)))]
    for bit in flipped:
        content[bit // 8] ^= 1 << bit % 8
    guarded = any(_has_checksum(kind.folder / path.relative_to(work), bit // 8) for bit in flipped)
    path.write_bytes(content)
    began = time.thread_time()
    found = kind.read(work, path)
    if time.thread_time() - began > SECONDS:
        found = f"slow: {time.thread_time() - began:.1f} s"
    if found in (NOTICED, SAME) or (found == OTHER and not guarded):
        return found
    return f"bits {flipped} of {path.relative_to(work)}: {found}"


def findings(
    seed: str, seconds: float, first: int = 0, most: int = 1 << 62
) -> Iterator[tuple[str, Finding, Mapping[str, Sequence[int]]]]:
    """What goes wrong until the time is over, and in which kind of file; at the end the number of cases, and the tally
    of each kind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        kinds = made(folder)
        names = sorted(kinds)
        tally = Tally(len(names))
        began, case = time.monotonic(), first

        def try_case(number: int) -> str | None:
            kind = number % len(names)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = attempt(kinds[names[kind]], folder / WORK, f"{seed} {number}")
            if found not in WORDS:
                return found
            tally.add(kind, found)
            return None

        while time.monotonic() - began < seconds and case < most:
            last = min(case + 20 * len(names), most)
            for found in tried(try_case, case, last, seconds=2 * SECONDS, room=ROOM):
                yield names[found.case % len(names)], found, {}
            case = last
        yield "", Finding(case, ""), dict(zip(names, tally.counts.tolist(), strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", default=str(time.time_ns()))
    parser.add_argument("--first", type=int, default=0, help="the first case")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"seed {given.seed}", flush=True)
    bad = 0
    for kind, finding, tally in findings(given.seed, given.minutes * 60, given.first):
        if finding.what:
            bad += 1
            print(f"case {finding.case}: {kind}: {finding.what}", flush=True)
        for name, counts in tally.items():
            print(f"{name}: {', '.join(f'{count:,} {word}' for count, word in zip(counts, WORDS, strict=True))}")
    print(f"{finding.case - given.first:,} files, {bad} findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
