"""What is compared in a cell: each proof returns how a run agrees, or raises the error that refuses the config."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

import runner
from runner.engine import eager, initial_state
from runner.engine.cudagraph import execute as cudagraph
from runner.engine.rows import Row
from runner.errors import EngineError
from runner.faults import Faults
from runner.plan.checks.engines.capturable import check_capturable
from runner.plan.checks.mixed_precision import check_scaled
from runner.plan.compiler import PlanLimits
from runner.plan.snapshots import FEWEST_RUNS
from runner.record.directory import create_run_directory
from runner.record.resuming import resume
from runner.record.running import run_recorded
from runner.report.run.sections import report_of_run
from runner.report.run.stepping.replaying import replays
from runner.report.run.subject import read_subject
from tests.cli.commands import steprun
from tests.engine.compiled.plain import without_compiler
from tests.engine.cudagraph.tape import Tape
from tests.engine.running import numbers, same
from tests.forking import fork
from tests.promises.goes_with.by_hand import INPUTS, SAMPLES, arrays
from tests.promises.goes_with.capabilities import CAPABILITIES
from tests.promises.goes_with.swept import as_lanes, as_points, failing
from tests.promises.goes_with.variations import config_of, hand_of, memory_of

TOLERANCES = (6.5e-6, 5e-5)
"""Of float32: those of `torch.testing`, times five for compounding."""

Numbers = Mapping[str, Tensor | None]


def write_files(folder: Path) -> None:
    """The data of every cell."""
    made = arrays()
    for name, values in made.items():
        numpy.save(folder / f"{name}.npy", values)
    table = {f"x{at:02}": made["x"][:, at] for at in range(INPUTS)}
    frame = pandas.DataFrame(table | {f"y{at}": made["y"][:, at] for at in range(2)})
    frame["kind"] = numpy.where(made["x"][:, 0] > 0, "more", "less")
    frame["gap"] = frame["x01"].where(frame["x01"] >= 0)
    frame.to_csv(folder / "train.csv", index=False)
    _write_cells(frame, folder / "written.csv")
    frame["day"] = pandas.to_datetime(numpy.where(made["x"][:, 2] > 0, 200, 3), unit="D")
    frame.to_parquet(folder / "train.parquet", index=False, row_group_size=800)
    for number, (start, end) in enumerate([(0, 1000), (1000, SAMPLES)]):
        part = frame.iloc[start:end, : INPUTS + 2]
        part.to_parquet(folder / f"part-{number}.parquet", index=False, row_group_size=800)
    for dtype in (torch.float32, torch.bfloat16, torch.complex64):
        halves = {"w": torch.full((INPUTS, 2), 0.5, dtype=dtype), "b": torch.full((2,), 0.5, dtype=dtype)}
        save_file(halves, folder / f"{str(dtype).removeprefix('torch.')}.safetensors")


def _write_cells(frame: pandas.DataFrame, path: Path) -> None:
    """A table with other characters between cells and in numbers, and two texts for missing ones."""
    gaps = ["NA" if place % 2 else "-1" for place in range(len(frame))]
    known = frame["gap"].map(str).str.replace(".", ",")
    frame.assign(gap=known.where(frame["gap"].notna(), gaps)).to_csv(path, index=False, sep=";", decimal=",")


def written(folder: Path, config: Mapping[str, Any]) -> Path:
    """A config as a file beside its data."""
    path = folder / "cell.yaml"
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False, width=200), encoding="utf-8")
    return path


def planned(path: Path, memory: int | None = None, overrides: tuple[str, ...] = ()) -> runner.Plan:
    return runner.compile(runner.load(path, overrides=list(overrides)), limits=PlanLimits(memory=memory))


def executed(plan: runner.Plan) -> tuple[list[Row], dict[str, Tensor]]:
    """The rows of a run, and its state at the end."""
    state = initial_state(plan)
    rows = list(runner.execute(plan, state))
    return rows, state.tensors()


@contextmanager
def without_machine_code() -> Iterator[None]:
    """The regions of the compiled engine are called as they are."""
    with pytest.MonkeyPatch.context() as patch:
        without_compiler(patch)
        yield


@contextmanager
def quickly_translated() -> Iterator[None]:
    """XLA makes slower code in less time, which for ten small steps is much less."""
    jax = pytest.importorskip("jax")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


def agreement(found: Tensor | None, expected: Tensor | None, rtol: float, atol: float) -> str:
    """`bits`, or `close` within the tolerances.

    Raises:
        AssertionError: further apart.
    """
    if same(found, expected):
        return "bits"
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol, equal_nan=True)
    return "close"


def of_rows(found: list[Row], expected: list[Row], rtol: float = 0.0, atol: float = 0.0) -> str:
    """How two runs agree, in every column of every row."""
    assert [(row.number, row.path, row.iteration) for row in found] == [
        (row.number, row.path, row.iteration) for row in expected
    ]
    words = set()
    for one, other in zip(found, expected, strict=True):
        mine = numbers(one)
        for name, value in numbers(other).items():
            words.add(agreement(mine[name], value, rtol, atol))
    return "close" if "close" in words else "bits"


def by_hand(name: str, column: str, folder: Path) -> str:
    """Compare the weights at the end, and what was measured, with the same loop written by hand."""
    capability = CAPABILITIES[name]
    plan = planned(written(folder, config_of(capability, column)), memory_of(capability, column))
    rows, state = executed(plan)
    hand = hand_of(capability, column)
    with torch.random.fork_rng():
        capability.loop(hand)
    values = [numbers(row) for row in rows]
    measured = [row[each] for row in values for each in capability.measured if row.get(each) is not None]
    if capability.measured:
        assert len(measured) == len(hand.measured)
        few = 4 * torch.finfo(hand.dtype).eps if capability.rounded else 0.0
        words = {agreement(*pair, few, few) for pair in zip(measured, hand.measured, strict=True)}
    else:
        words = set()
    for each, parameter in (hand.parameters | hand.others).items():
        words.add(agreement(state[each], parameter.detach(), 1e-5, 1e-6))
    return "close" if "close" in words else "bits"


def in_parts(name: str, column: str, folder: Path) -> str:
    """Compare a run that reads its data in parts with one that holds them."""
    path = written(folder, config_of(CAPABILITIES[name], column))
    plan = planned(path, memory_of(CAPABILITIES[name], column))
    assert plan.sources["train"].streams
    whole = planned(path)
    assert not whole.sources["train"].streams
    return of_rows(executed(plan)[0], executed(whole)[0])


def compiled(name: str, column: str, folder: Path, *, machine_code: bool = False) -> str:
    """Compare an engine that compiles with the eager engine; regions are called as they are, or as machine code."""
    path = written(folder, config_of(CAPABILITIES[name], column))
    plan = planned(path)
    with nullcontext() if machine_code else without_machine_code():
        found = executed(plan)[0]
    narrow = plan.config.autocast is not None or plan.dtype == torch.bfloat16
    rtol, atol = (8e-2, 1e-2) if narrow else TOLERANCES
    word = of_rows(found, executed(planned(path, overrides=("engine=eager",)))[0], rtol, atol)
    return "close" if word == "bits" else word  # machine code adds in another order


def translated(name: str, column: str, folder: Path) -> str:
    """Compare the engine on XLA with the eager engine."""
    return compiled(name, column, folder, machine_code=True)


def replayed(name: str, column: str, folder: Path) -> str:
    """Compare steps that are recorded and replayed on the CPU with the eager engine."""
    path = written(folder, config_of(CAPABILITIES[name], column))
    plan = planned(path, memory_of(CAPABILITIES[name], column), ("engine=eager", "device=cpu"))
    faults = Faults(plan.config.document)
    check_capturable(plan.program, plan.tensors, faults)
    check_scaled(plan.loss_scaling, plan.program, plan.optimizers, plan.tensors, "cudagraph", faults)
    faults.stop(EngineError)
    tape = Tape()
    found = list(cudagraph.execute(plan, initial_state(plan), shared=True, capture=tape))
    word = of_rows(found, list(eager.execute(plan, initial_state(plan))))
    assert tape.replays > 0
    return word


def resumed(name: str, column: str, folder: Path) -> str:
    """Compare a run that is killed in its middle and resumed with one that is not."""
    path = written(folder, config_of(CAPABILITIES[name], column))
    plan = planned(path)
    whole = runner.run(path, runs_dir=folder / "runs")
    directory = create_run_directory(folder, "cell", datetime.now())
    middle = len(whole) // 2
    seen = 0

    def see(row: Row) -> None:
        nonlocal seen
        seen += 1
        if seen == middle:
            os.kill(os.getpid(), signal.SIGKILL)

    child = fork()
    if child == 0:
        try:
            run_recorded(plan, directory, see=see, checkpoint_every=2)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    found = resume(directory, allowed_folders=[folder])
    assert found.status == "finished"
    assert found.to_arrow().equals(whole.to_arrow())
    assert all(same(found.weights[each], whole.weights[each]) for each in whole.weights)
    return "bits"


def checked(name: str, column: str, folder: Path) -> str:
    """Take a snapshot, with as few perturbed runs as there may be, and check it."""
    path = written(folder, config_of(CAPABILITIES[name], column))
    planned(path)
    for command in (("snapshot", f"--uncertainty={FEWEST_RUNS}"), ("check",)):
        done = steprun(*command, str(path), "--quiet")
        assert done.code == 0, done.out + done.err
    return "bits"


def compared(name: str, column: str, folder: Path) -> str:
    """Run beside a float64 variant: in the first rows they differ by rounding."""
    path = written(folder, config_of(CAPABILITIES[name], column))
    plan = planned(path)
    done = steprun("compare", str(path), "--with", "dtype=float64", "--json")
    assert done.code == 0, done.out + done.err
    table = json.loads(done.out)
    assert not table["equal"]
    errors = [cell["error"] for row in table["steps"][:3] for cell in row["tensors"].values()]
    assert len(errors) > 3
    narrowest = plan.dtype if plan.config.autocast is None else torch.bfloat16
    assert max(errors) <= 32 * torch.finfo(narrowest).eps, errors
    return "close"


def fails(name: str, column: str, folder: Path) -> str:
    """Compare the row in which a number first is not finite with that of the loop by hand."""
    capability = CAPABILITIES[name]
    overrides = ("engine=eager", "device=cpu") if column == "cudagraph" else ()
    plan = planned(written(folder, config_of(capability, column)), memory_of(capability, column), overrides)
    hand = hand_of(capability, column)
    count = 1
    with torch.random.fork_rng():
        for batch in hand.batches(2):
            hand.train(batch)
            count += 1
            if not all(bool(each.isfinite().all()) for each in (*hand.measured, *hand.parameters.values())):
                break
        else:
            raise AssertionError("all numbers are finite")
    if column == "check":
        done = steprun("snapshot", str(folder / "cell.yaml"))
        assert done.code == 1
        assert f"(row {count - 1}, " in done.err
        return "bits"
    if column == "compare":  # goes on beyond the row
        done = steprun("compare", str(folder / "cell.yaml"), "--with", "dtype=float64")
        assert done.code == 0, done.err
        return "close"
    if column in ("lanes", "processes"):
        outcome = failing(planned(folder / "cell.yaml").config, folder, lanes=column == "lanes")
        assert f"(row {count - 1}, " in str(outcome.failure)
        assert outcome.rows == count
        return "bits"
    rows: list[Row] = []
    if column == "cudagraph":
        running = cudagraph.execute(plan, initial_state(plan), shared=True, capture=Tape())
    else:
        running = runner.execute(plan)
    with pytest.raises(runner.RunError, match=rf"\(row {count - 1}, ") as caught, without_machine_code():
        rows.extend(row for row in running)
    assert caught.value.problems[0].line > 0
    assert len(rows) == count
    if column == "resume":
        with pytest.raises(runner.RunError, match=rf"\(row {count - 1}, "):
            runner.run(folder / "cell.yaml", runs_dir=folder)
        with pytest.raises(runner.RunError, match=rf"\(row {count - 1}, "):
            resume(next(folder.glob("cell/*/")), allowed_folders=[folder])
    return "bits"


def longer(name: str, column: str, folder: Path) -> str:
    """Compare a run that goes on after its end with one that was that long."""
    path = written(folder, config_of(CAPABILITIES[name], column))
    with without_machine_code():
        short = runner.run(path, ["steps.epochs=1"], runs_dir=folder / "short")
        found = resume(short.path, ["steps.epochs=2"], allowed_folders=[folder])
        whole = runner.run(path, runs_dir=folder / "whole")
    assert found.to_arrow().equals(whole.to_arrow())
    assert all(same(found.weights[each], whole.weights[each]) for each in whole.weights)
    return "bits"


def applied(name: str, column: str, folder: Path) -> str:
    """Compare values of a trained run with those of the model by hand."""
    capability = CAPABILITIES[name]
    path = written(folder, config_of(capability, column))
    with without_machine_code():
        run = runner.run(path, runs_dir=folder / "runs")
        model = runner.load_model(run.path, allowed_folders=[folder])
    hand = hand_of(capability, column)
    with torch.random.fork_rng():
        capability.loop(hand)
    hand.training = False
    with torch.no_grad():
        expected = hand.hidden(hand.valid[0])
    found = model.value("h", x=hand.valid[0])
    return agreement(found, expected, *(TOLERANCES if column in ("compile", "xla") else (0.0, 0.0)))


def applied_to_a_file(name: str, column: str, folder: Path) -> str:
    """Compare values that `steprun apply` writes for each sample of a file with those of the model by hand."""
    capability = CAPABILITIES[name]
    path = written(folder, config_of(capability, column))
    with without_machine_code():
        run = runner.run(path, runs_dir=folder / "runs")
    target = folder / "values.parquet"
    options = [
        "--data",
        f"train.columns.x={folder / 'x_valid.npy'}",
        "--values",
        "size",
        "--to",
        str(target),
        "--batch-size",
        "25",
    ]
    done = steprun("apply", str(run.path), *options, "--allow", str(folder), "--quiet")
    assert done.code == 0, done.out + done.err
    hand = hand_of(capability, column)
    with torch.random.fork_rng():
        capability.loop(hand)
    hand.training = False
    with torch.no_grad():
        expected = torch.cat([hand.hidden(part).abs() for part in hand.valid[0].split(25)])
    found = torch.tensor(numpy.stack(pandas.read_parquet(target)["size"]))
    return agreement(found.to(expected.dtype), expected, *(TOLERANCES if column in ("compile", "xla") else (0.0, 0.0)))


def reported(name: str, column: str, folder: Path) -> str:
    """Compare the gradients that a report computes again, from the recorded weights of each row, with the recorded."""
    path = written(folder, config_of(CAPABILITIES[name], column))
    plan = planned(path, memory_of(CAPABILITIES[name], column))
    with without_machine_code():
        directory = create_run_directory(folder, "cell", datetime.now())
        run_recorded(plan, directory)
    report_of_run(directory, [folder])
    subject = read_subject(directory, [folder])
    found = replays(subject)
    assert found.reason is None
    rows = list(subject.run)
    assert list(found.flows) == [place for place, row in enumerate(rows) if row.step == "train"]
    tolerances = TOLERANCES if column in ("compile", "xla") else (0.0, 0.0)
    words = set()
    for place, made in found.flows.items():
        inputs = {node.meta["input"]: node for node in made.computation.nodes if node.op == "placeholder"}
        for each in ("w", "b"):
            words.add(agreement(made.flow[inputs[each]][1], rows[place][f"{each}.grad"], *tolerances))
    return "close" if "close" in words or column in ("compile", "xla") else "bits"


def laned(name: str, column: str, folder: Path) -> str:
    """Compare four points of a sweep as lanes of one computation with the same points alone."""
    return as_lanes(*_sweep(name, column, folder))


def pooled(name: str, column: str, folder: Path) -> str:
    """Compare two points of a sweep, run as a process of the pool runs them, with the runs alone."""
    return as_points(*_sweep(name, column, folder))


def halved(name: str, column: str, folder: Path) -> str:
    """Compare the points of a sweep that go on, after others have stopped, with the runs alone."""
    with without_machine_code():
        if column == "lanes":
            return as_points(*_sweep(name, column, folder), seeds=8, lanes="exact", halving=True)
        return as_points(*_sweep(name, column, folder), halving=True)


def _sweep(name: str, column: str, folder: Path) -> tuple[runner.Config, Path, PlanLimits]:
    """The config of a cell, its folder, and the memory that it may take."""
    capability = CAPABILITIES[name]
    config = runner.load(written(folder, config_of(capability, column)))
    return config, folder, PlanLimits(memory=memory_of(capability, column))


PROOFS: Mapping[str, Callable[[str, str, Path], str]] = {
    **dict.fromkeys(("by hand", "bfloat16", "complex", "two optimizers", "L-BFGS", "random numbers"), by_hand),
    "larger than memory": in_parts,
    "compile": compiled,
    "cudagraph": replayed,
    "xla": translated,
    "resume": resumed,
    "check": checked,
    "compare": compared,
    "lanes": laned,
    "processes": pooled,
}
"""The proof of each column."""

OWN: Mapping[str, Callable[[str, str, Path], str]] = {
    "fails": fails,
    "longer": longer,
    "applied": applied,
    "applied to a file": applied_to_a_file,
    "reported": reported,
    "halved": halved,
}
"""The proofs of capabilities that are no part of a run."""


def prove(name: str, column: str, folder: Path) -> str:
    """How the run of a cell agrees with what it is compared with: `bits` or `close`.

    Raises:
        ConfigError: it is refused.
    """
    with quickly_translated() if column == "xla" else nullcontext():
        return (OWN.get(CAPABILITIES[name].proof) or PROOFS[column])(name, column, folder)
