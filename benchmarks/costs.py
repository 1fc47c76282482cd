"""growth: how the cost of rows, columns, names and snapshots grows, compared with pandas, a tenth of it or a loop."""

from __future__ import annotations

import functools
import gc
import io
import sys
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

import runner
from benchmarks.growth import NAME, _config
from benchmarks.measure import Workload, growing, scratch
from benchmarks.memory import peak_of
from runner.compare.numbers import numerals
from runner.compare.runs.difference import compare_runs
from runner.record import Run
from runner.record.display.console import plan_printing, printer_of
from runner.record.reading import open_run

ROWS, MANY_ROWS, DIFFERING = 100_000, 1_000_000, 32_000
STEPS, LISTED = 1_000, 1_000
PRINTED = 300
FRAME_BYTES = 85  # of a row in the DataFrame that pandas reads; `to_pandas` may take four times as much
PEAK_PROGRAM = """
import sys
from benchmarks import costs
costs.{function}(sys.argv[1])
print(open("/proc/self/status").read())
"""
WIDE, COLUMNS, WIDE_ROWS = 1_802, 4_001, 100
SMALL = ((10, 10_000), (100, 2_000), (1_000, 300), (2_000, 200))
NAMES = 2_000
LINES = 2_000
OPERATIONS = 28_500

FIVE = """
parameters: {{a: {{init: 1.0}}, b: {{init: 2.0}}}}
expression: |
  c = a * b
  loss = (c - a - b) * 1e-3
optimizer: {{sgd: {{lr: {rate}}}}}
steps:
  - repeat: {{times: {rows}, steps: [train]}}
log: {{include: [loss, a, b, a.grad, b.grad]}}
engine: auto
"""


@functools.cache
def recorded(rows: int, rate: float = 1e-3) -> Run:
    """A run of five columns of one number."""
    return runner.run(_config(f"rows-{rows}-{rate}", FIVE.format(rows=rows, rate=rate)), runs_dir=scratch())


def rows_read(rows: int) -> object:
    return deque(recorded(rows).rows(), maxlen=1)


def columns_read(rows: int) -> list[Tensor]:
    """The same columns as one tensor each."""
    run = recorded(rows)
    return [run.tensor(column.name) for column in run.columns]


def frame(rows: int) -> object:
    return recorded(rows).to_pandas()


def frame_by_pandas(rows: int) -> object:
    import pandas

    return pandas.concat([pandas.read_parquet(part.path) for part in recorded(rows).parts])


def frame_of(path: str) -> object:
    return open_run(path).to_pandas()


def frame_of_parts(path: str) -> object:
    import pandas

    return pandas.concat([pandas.read_parquet(part.path) for part in open_run(path).parts])


def _peak(function: Callable[[str], object], rows: int) -> int:
    program = PEAK_PROGRAM.format(function=function.__name__)
    return peak_of([sys.executable, "-c", program, str(recorded(rows).path)])


def both_by_pandas(rows: int) -> None:
    _times(functools.partial(frame_by_pandas, rows), 2)


def compared(rows: int, rate: float) -> object:
    return compare_runs(recorded(rows), recorded(rows, rate))


# --- many names


def _parameters(count: int, shape: str) -> str:
    return "parameters:\n" + "".join(f"  p{number}: {{shape: {shape}, init: 1.0}}\n" for number in range(count))


def _names(count: int) -> str:
    return ", ".join(f"p{number}" for number in range(count))


def _small(count: int, steps: int, shape: str = "[4]", more: str = "") -> str:
    joined = "cat" if shape != "[]" else "stack"
    return f"""
{_parameters(count, shape)}
expression: |
  loss = {joined}([{_names(count)}]).sum()
optimizer: {{sgd: {{lr: 0.01}}}}
steps:
  - repeat: {{times: {steps}, steps: [train]}}
{more}
"""


def small_logged(count: int, steps: int, tensors: str = "full", shape: str = "[4]") -> Run:
    """Trains many small parameters, with every weight and gradient logged."""
    text = _small(count, steps, shape, f"log: {{tensors: {tensors}}}")
    return runner.run(_config(f"small-{count}-{steps}-{tensors}", text), runs_dir=scratch())


def small_by_hand(count: int, steps: int, shape: tuple[int, ...] = (4,)) -> list[Tensor]:
    parameters = [torch.ones(shape, requires_grad=True) for _ in range(count)]
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        (torch.cat if shape else torch.stack)(parameters).sum().backward()
        optimizer.step()
    return parameters


@functools.cache
def many(count: int) -> runner.Plan:
    return runner.compile(runner.load(_config(f"many-{count}", _small(count, PRINTED))))


def quiet(count: int) -> object:
    return deque(runner.execute(many(count), shared=True), maxlen=1)


def printed(count: int) -> None:
    """The same, and its rows as a table."""
    plan = many(count)
    with printer_of(plan, plan_printing(plan, "lines"), io.StringIO()) as printer:
        for row in runner.execute(plan, shared=True):
            printer(row)


@functools.cache
def wide(rate: float, parameters: int = WIDE) -> Run:
    """A run with two columns for each parameter, and one for the loss."""
    text = _small(parameters, 1_000, "[]").replace("lr: 0.01", f"lr: {rate}")
    return runner.run(_config(f"wide-{rate}-{parameters}", text), runs_dir=scratch())


def wide_compared(rate: float, parameters: int = WIDE) -> object:
    return compare_runs(wide(0.01, parameters), wide(rate, parameters))


def wide_by_pyarrow() -> None:
    import pyarrow.parquet

    for part in wide(0.01).parts:
        _times(functools.partial(pyarrow.parquet.read_table, part.path, use_threads=False), 2)


def planned(text: Callable[[int], str], count: int) -> object:
    return runner.compile(runner.load(_config("planned", text(count))))


def constants(count: int) -> str:
    chained = "".join(f"  c{number}: c{number - 1} + 1\n" for number in range(1, count))
    return f"""
constants:
  c0: 1.0
{chained}
parameters: {{a: {{init: 1.0}}}}
expression: loss = a * c{count - 1}
optimizer: {{sgd: {{lr: 0.01}}}}
steps: [train]
"""


def assigned(count: int) -> str:
    text = ", ".join(f"p{number}: p{number} + 1" for number in range(count))
    return _small(count, 1, "[]", f"  - assign: {{{text}}}")


def globs(count: int) -> str:
    return _small(count, 1, "[]", "log: {include: [loss, " + ", ".join(f"'p{n}*'" for n in range(count)) + "]}")


def operations(count: int) -> str:
    return f"""
parameters: {{a: {{init: 1.0}}}}
expression: |
  x = a
  for i in range({count // 2}): x = x * 1.0001
  loss = x.sum()
optimizer: {{sgd: {{lr: 0.01}}}}
steps: [train]
log: {{include: [loss]}}
"""


@functools.cache
def listed(steps: int, columns: int) -> runner.Plan:
    """A plan of steps that are listed one by one, each of which writes one of many parameters."""
    more = "".join(f"  - assign: {{p{number % columns}: p{number % columns} + 1}}\n" for number in range(steps))
    return runner.compile(runner.load(_config(f"listed-{steps}", _small(columns, 1, "[]", more))))


def listed_run(steps: int, *, shared: bool = True) -> object:
    return deque(runner.execute(listed(steps, LISTED), shared=shared), maxlen=1)


# --- garbage collection


@functools.cache
def live_objects() -> list[list[int]]:
    return [[number] for number in range(2_000_000)]


def executed(collected: bool) -> object:
    live_objects()
    if not collected:
        gc.disable()
    try:
        return deque(runner.execute(recorded_plan()), maxlen=1)
    finally:
        gc.enable()


@functools.cache
def recorded_plan() -> runner.Plan:
    return runner.compile(runner.load(_config("collected", _small(10, 2_000))))


# --- snapshots


@functools.cache
def values(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, generator=generator) for _ in range(count)]


@functools.cache
def texts(count: int) -> list[str]:
    return list(map(numerals.to_text, values(count)))


def lines_taken(count: int) -> object:
    return list(map(numerals.to_text, values(count)))


def lines_read(count: int) -> object:
    return [numerals.from_text(text, torch.float32, (4,)) for text in texts(count)]


def workloads() -> list[Workload]:
    return [*_rows(), *_small_parameters(), *_snapshot_lines(), *_planning()]


def _rows() -> list[Workload]:
    part, both = functools.partial, "reading both by pandas"
    equal, differing = part(compared, rate=1e-3), part(compared, rate=1.1e-3)
    rows, frames = f"`rows()` of {ROWS:,} rows", f"`to_pandas` of {MANY_ROWS:,} rows"
    same, others = (
        f"`diff` of equal runs of {MANY_ROWS:,} rows",
        f"`diff` of runs of {DIFFERING:,} rows that all differ",
    )
    return [
        growing(NAME, rows, "the columns as tensors", rows_read, columns_read, ROWS, 0.3, "difference"),
        growing(NAME, frames, "pandas.read_parquet", frame, frame_by_pandas, MANY_ROWS, 1.2),
        Workload(
            NAME,
            f"{frames}: memory",
            "pandas.read_parquet",
            part(_peak, frame_of, MANY_ROWS),
            part(_peak, frame_of_parts, MANY_ROWS),
            reach=3.0 * FRAME_BYTES * MANY_ROWS / (1 << 20),
            measure="more memory",
        ),
        growing(NAME, same, both, equal, both_by_pandas, MANY_ROWS, 3.0, "difference"),
        growing(NAME, others, both, differing, both_by_pandas, DIFFERING, 1.0, "difference"),
        *(
            Workload(
                NAME,
                f"`diff` of runs of 1,001 rows and {2 * WIDE + 1:,} columns that are {alike}",
                "pyarrow reading both",
                part(wide_compared, rate),
                wide_by_pyarrow,
                reach=reach,
                measure="difference",
                tenth=part(wide_compared, rate, WIDE // 10),
            )
            for alike, rate, reach in (("equal", 0.01, 1.0), ("different", 0.011, 3.0))
        ),
    ]


def _small_parameters() -> list[Workload]:
    part, by_hand = functools.partial, "the loop by hand"
    all_logged = [
        Workload(
            NAME,
            f"{count:,} small parameters, {steps:,} steps, every weight and gradient logged",
            by_hand,
            part(small_logged, count, steps),
            part(small_by_hand, count, steps),
            reach=1.0 if count <= 100 else 1.1,
            steps=steps,
            tenth=part(small_logged, count // 10, steps),
        )
        for count, steps in SMALL
    ]
    full = part(small_logged, 100, 2_000)
    reduced = [
        Workload(
            NAME,
            f"100 small parameters, 2,000 steps, `tensors: {kept}`",
            "the same with `full`",
            part(full, kept),
            full,
            reach=2.0,
            tenth=part(small_logged, 10, 2_000, kept),
        )
        for kept in ("stats", "digest")
    ]
    columns = Workload(
        NAME,
        f"{COLUMNS:,} columns of one number, {WIDE_ROWS} rows: their log",
        "the same run, without it",
        part(small_logged, COLUMNS // 2, WIDE_ROWS, "full", "[]"),
        part(small_logged, COLUMNS // 2, WIDE_ROWS, "none", "[]"),
        reach=WIDE_ROWS * COLUMNS * 1e-6,  # a microsecond a cell
        measure="difference",
        tenth=part(small_logged, COLUMNS // 20, WIDE_ROWS, "full", "[]"),
    )
    console = Workload(
        NAME,
        f"1,000 small parameters, {PRINTED} steps, printed as lines",
        "the same without printing",
        part(printed, 1_000),
        part(quiet, 1_000),
        reach=1.25,  # printing is a fifth of the run
        tenth=part(printed, 100),
    )
    return [*all_logged, *reduced, columns, console]


def _snapshot_lines() -> list[Workload]:
    part = functools.partial
    written, read = part(lines_taken, LINES), part(lines_read, LINES)
    return [
        Workload(
            NAME,
            f"{LINES:,} lines of a snapshot of 4 numbers: {done}",
            f"the same {other}",
            ours,
            theirs,
            reach=0.04,
            measure="each",
            steps=LINES,
            tenth=part(work, LINES // 10),
        )
        for done, other, ours, theirs, work in (
            ("written", "read", written, read, lines_taken),
            ("read", "written", read, written, lines_read),
        )
    ]


def _planning() -> list[Workload]:
    part = functools.partial
    texts = (
        (f"{NAMES:,} chained constants", constants, NAMES),
        (f"an `assign` of {NAMES:,} names", assigned, NAMES),
        (f"{NAMES:,} globs and {NAMES:,} names", globs, NAMES),
        (f"an expression of {OPERATIONS:,} operations", operations, OPERATIONS),
    )
    linear = part(_times, _linear, 10)
    listed_steps, tenths = f"{STEPS:,} listed steps of {LISTED:,} parameters", "a tenth of the steps, ten times"
    copied = part(listed_run, shared=False)
    return [
        growing(NAME, listed_steps, tenths, listed_run, _ten_tenths(listed_run), STEPS, 1.26),
        growing(NAME, f"{listed_steps}, rows of their own", tenths, copied, _ten_tenths(copied), STEPS, 1.26),
        Workload(
            NAME,
            "`runner.execute` beside 2,000,000 Python lists",
            "without garbage collection",
            part(executed, collected=True),
            part(executed, collected=False),
            reach=1.1,
        ),
        *(
            growing(NAME, f"{what}: planned", "ten of a tenth", plans, _ten_tenths(plans), count, 1.26)
            for what, text, count in texts
            for plans in (part(planned, text),)
        ),
        Workload(
            NAME, "planning `configs/linear.yaml`", "10 of them", linear, linear, reach=2.0, measure="each", steps=10
        ),
    ]


def _linear() -> object:
    return runner.compile(runner.load("configs/linear.yaml"))


def _ten_tenths(work: Callable[[int], object]) -> Callable[[int], None]:
    return lambda size: _times(functools.partial(work, size // 10), 10)


def _times(work: Callable[[], object], count: int) -> None:
    for _ in range(count):
        work()
