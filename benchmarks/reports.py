"""W10: reports as pages: their size, the time to make them, and the time to open them in headless Chromium.

P10: the same curves as event files of TensorBoard, and as a page of plotly.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import numpy.typing

import runner
from benchmarks import digits, linear, sweeps
from benchmarks.measure import Workload, scratch
from benchmarks.training import DATA_FOLDER
from runner.cli.output.pages import page_of_runs, recorder_of_runs
from runner.compare.runs.difference import compare_runs
from runner.record import open_run
from runner.report.library import PACKAGE
from runner.report.page import page
from runner.report.run.sections import report_of_run
from runner.report.sweep.sections import report_of_sweep

NAMES = ("W10", "P10")
BOWL = Path(__file__).with_name("configs") / "bowl.yaml"
CHROMIUM = Path("/usr/bin/chromium")
EPOCHS = 417  # of 24 batches: 10,008 rows, and the row `start`
LONG = 100_000

Numbers = numpy.typing.NDArray[numpy.float64]


@functools.cache
def network() -> Path:
    """The run of W3 with its full log, 10,009 rows."""
    overrides = [f"steps.epochs={EPOCHS}", "~log.include", "log.budget=2_000_000_000"]
    return runner.run(digits.CONFIG, overrides, runs_dir=scratch(), allowed_folders=[DATA_FOLDER]).path


@functools.cache
def line(rate: float = 0.01, steps: int = LONG) -> Path:
    """A run of W1, everything logged."""
    overrides = [f"steps={steps}", f"learning_rate={rate!r}"]
    return runner.run(linear.CONFIG, overrides, runs_dir=scratch()).path


@functools.cache
def swept() -> Path:
    """A sweep of 1,000 points of 100 steps."""
    outcomes = sweeps.sweep(BOWL, [], {}, "exact")
    assert len(outcomes) == sweeps.POINTS
    return next(each for each in scratch().glob("bowl/2*") if not each.is_symlink())


def page_of_network() -> bytes:
    return page(report_of_run(network(), [DATA_FOLDER]))


def page_of_line() -> bytes:
    return page(report_of_run(line()))


def page_of_sweep() -> bytes:
    return page(report_of_sweep(swept()))


def page_of_difference() -> bytes:
    """The page of two runs of W1 of 10,000 rows, whose learning rates differ in the last place."""
    expected, found = (open_run(line(rate, 10_000)) for rate in (0.01, float(numpy.nextafter(0.01, 1))))
    recorder = recorder_of_runs(found, expected)
    difference = compare_runs(found, expected, observe=recorder)
    return page(page_of_runs(difference, found, expected, recorder))


@functools.cache
def curves() -> dict[str, Numbers]:
    """The loss of the network in each row, and the norms of its gradients and weights."""
    run = open_run(network())
    found = {"loss": _values(run, "loss")}
    for name in ("w1", "b1", "w2", "b2"):
        for column in (name, f"{name}.grad"):
            tensor = run.tensor(column)
            found[column] = tensor.double().flatten(1).norm(dim=1).numpy()
    return found


def _values(run: runner.Run, name: str) -> Numbers:
    found: Numbers = run.tensor(name).double().flatten().numpy()
    return found


def tensorboard_events() -> Path:
    """Event files of TensorBoard with the curves."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder = scratch() / "events"
    shutil.rmtree(folder, ignore_errors=True)
    writer = EventFileWriter(str(folder))
    for name, values in curves().items():
        for row, value in enumerate(values.tolist()):
            summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
            writer.add_event(Event(step=row, wall_time=0.0, summary=summary))
    writer.close()
    return folder


def plotly_page() -> bytes:
    """A page of plotly with the curves, which opens without a network."""
    import plotly.graph_objects as graphs

    lines = [graphs.Scattergl(y=values, name=name) for name, values in curves().items()]
    made: str = graphs.Figure(lines).to_html(include_plotlyjs=True)
    return made.encode()


@dataclass(frozen=True, slots=True)
class Needed:
    """Something that a measurement needs, and how to install it."""

    name: str
    module: str
    extra: str
    program: Path | None = None

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None and (self.program is None or self.program.exists())


DRAWING = Needed("youplot", PACKAGE, "report")
BROWSER = Needed("Playwright, or Chromium,", "playwright", "dev", CHROMIUM)
TENSORBOARD = Needed("TensorBoard", "tensorboard", "benchmarks")
PLOTLY = Needed("plotly", "plotly", "benchmarks")


def missing() -> Iterator[str]:
    """Yields a line for each thing that is not installed."""
    for each in (DRAWING, BROWSER, TENSORBOARD, PLOTLY):
        if not each.installed:
            yield f"{each.name} is not installed: pip install 'steprun[{each.extra}]'"


@functools.cache
def _browser() -> Any:
    from playwright.sync_api import sync_playwright

    running = sync_playwright().start()
    browser = running.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])

    def close() -> None:
        browser.close()
        running.stop()

    atexit.register(close)
    return browser


DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(document.title))))"


def opened(make: Callable[[], bytes], name: str) -> None:
    """Open a page until its first screen is drawn."""
    path = _written(make, name)
    tab = _browser().new_page(viewport={"width": 1200, "height": 900})
    tab.goto(path.as_uri())
    tab.evaluate(DRAWN)
    tab.close()


@functools.cache
def _written(make: Callable[[], bytes], name: str) -> Path:
    path = scratch() / f"{name}.html"
    path.write_bytes(make())
    return path


def empty() -> bytes:
    return b"<!doctype html><title>empty</title>"


def size_of_folder(make: Callable[[], Path]) -> int:
    return sum(path.stat().st_size for path in make().rglob("*") if path.is_file())


def nothing() -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Subject:
    """A page, and what it may take at most: MiB, seconds to make it, and seconds to open it."""

    name: str
    what: str
    make: Callable[[], bytes]
    size: float | None
    making: float | None
    opening: float | None


SUBJECTS = (
    Subject("network", "W3, 10,009 rows, full log", page_of_network, 2.0, 1.0, 0.6),
    Subject("line", "W1, 100,001 rows, full log", page_of_line, 3.0, None, None),
    Subject("sweep", "a sweep of 1,000 points, 100 steps", page_of_sweep, 3.0, None, 1.0),
    Subject("difference", "two runs of W1, 10,001 rows", page_of_difference, None, None, None),
)


def workloads() -> list[Workload]:
    """The pages of steprun, and the same curves by others, where what they need is installed."""
    return [*(_pages() if DRAWING.installed else ()), *_peers()]


def _pages() -> Iterator[Workload]:
    for each in SUBJECTS:
        ours, what = each.make, f"report of {each.what}"
        size = functools.partial(_size, ours)
        yield Workload("W10", f"{what}: size", "", size, nothing, each.size, "more memory")
        yield Workload("W10", f"{what}: made", "nothing", ours, nothing, each.making, "difference")
        if BROWSER.installed:
            shown, bare = functools.partial(opened, ours, each.name), functools.partial(opened, empty, "empty")
            yield Workload("W10", f"{what}: opened", "an empty page", shown, bare, each.opening, "difference")


def _peers() -> Iterator[Workload]:
    made = "report of W3, 10,009 rows, full log: made"
    opening = "report of W3, 10,009 rows, full log: opened"
    size = "report of W3, 10,009 rows, full log: size"
    events, figure = "TensorBoard's events of 9 curves", "plotly, 9 curves"
    ours, ours_size = page_of_network, functools.partial(_size, page_of_network)
    if not DRAWING.installed:
        return
    if TENSORBOARD.installed:
        theirs = functools.partial(size_of_folder, tensorboard_events)
        yield Workload("P10", size, events, ours_size, theirs, None, "memory")
        yield Workload("P10", made, events, ours, tensorboard_events, None, verify=_ready)
    if PLOTLY.installed:
        yield Workload("P10", size, figure, ours_size, functools.partial(_size, plotly_page), None, "memory")
        yield Workload("P10", made, figure, ours, plotly_page, None, verify=_ready)
        if BROWSER.installed:
            shown = functools.partial(opened, ours, "network"), functools.partial(opened, plotly_page, "plotly")
            yield Workload("P10", opening, figure, *shown, None)


def _size(make: Callable[[], bytes]) -> int:
    return len(make())


def _ready() -> None:
    """Compute the curves before anything is timed."""
    assert len(curves()) == 9
