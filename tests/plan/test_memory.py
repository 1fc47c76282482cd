# ruff: noqa: E501 — configs in one line
"""What a run will take is told before it starts, near what it then takes, and bounded."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import types
import weakref
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

import numpy
import pytest
import torch

import runner
from runner.language.inference.room import lifted_limit, widen
from runner.plan import compiler, memory
from runner.plan.compiler import PlanLimits
from runner.record.directory import create_run_directory
from runner.record.running import run_recorded
from tests.engine.running import compiled, rows_of
from tests.tables import over

ROOT = Path(__file__).parents[2]


def test_the_machine_has_memory() -> None:
    assert 64 << 20 < memory.machine_memory() < 1 << 50


class _Kept:
    """An object that garbage collection looks at."""


@pytest.mark.parametrize("imports", [True, False])
def test_what_imports_make_uncollected_counts_as_old_and_collection_goes_on_after(
    imports: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.unfreeze()
    try:
        with memory.uncollected():
            assert not gc.isenabled()
            with memory.uncollected():
                kept = _Kept()
            assert not gc.isenabled()
            if imports:
                monkeypatch.setitem(sys.modules, "a_new_module", types.ModuleType("a_new_module"))
        assert gc.isenabled()
        assert any(found is kept for found in gc.get_objects(generation=2)) == imports
    finally:
        gc.freeze()  # as the process of the tests was
    with pytest.raises(KeyError), memory.uncollected():
        raise KeyError
    assert gc.isenabled()


def test_what_is_made_uncollected_and_given_up_is_collected_at_the_end() -> None:
    with memory.uncollected():
        given_up = _Kept()
        given_up.itself = given_up  # type: ignore[attr-defined]
        left = weakref.ref(given_up)
        del given_up
        assert left() is not None
    assert left() is None


def test_uncollected_keeps_what_the_caller_froze_or_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.freeze()
    before = gc.get_freeze_count()
    with memory.uncollected():
        monkeypatch.setitem(sys.modules, "a_new_module", types.ModuleType("a_new_module"))
    assert gc.get_freeze_count() > before / 2
    gc.disable()
    try:
        with memory.uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_wants_more_than_its_room_fails_at_once_and_the_limit_is_lifted_after() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with memory.bounded_memory(64 << 20), pytest.raises(RuntimeError, match="memory"):
        torch.zeros(1 << 34)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    with memory.bounded_memory(64 << 20):
        assert torch.zeros(1 << 20).sum() == 0


def test_a_limit_is_lifted_for_what_is_no_tensor_and_holds_again_after() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with memory.bounded_memory(64 << 20):
        bounded = resource.getrlimit(resource.RLIMIT_AS)[0]
        with lifted_limit():
            assert resource.getrlimit(resource.RLIMIT_AS) == (hard, hard)
            kept = torch.zeros(1 << 26)
        assert bounded + (1 << 28) <= resource.getrlimit(resource.RLIMIT_AS)[0] < bounded + (2 << 28)
        with pytest.raises(RuntimeError, match="memory"):
            torch.zeros(1 << 30)
        widen(1 << 20)
        assert kept.sum() == 0
    assert resource.getrlimit(resource.RLIMIT_AS) == (soft, hard)
    widen(1 << 20)
    assert resource.getrlimit(resource.RLIMIT_AS) == (soft, hard)


def test_a_limit_of_what_is_allocated_leaves_mapped_files_alone(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with (tmp_path / "large.npy").open("wb") as file:
        file.truncate(1 << 31)
    with memory.limited_data(64 << 20):
        mapped = numpy.memmap(tmp_path / "large.npy", mode="r")
        assert mapped[1 << 30] == 0
        with pytest.raises(RuntimeError, match="memory"):
            torch.zeros(1 << 28)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with memory.limited_data(None):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


WORKSPACE = """\
parameters: {x: {shape: [1], init: ones}}
expression: |
  a = x.expand(50, 30000)
  c = x.expand(16, 30000)
  d = x.expand(1, 30000)
  loss = einsum("ai,bi,ci,di->abcd", a, a, c, d).sum()
steps: [forward]
"""


@pytest.mark.slow
def test_an_operation_that_takes_more_than_the_limit_for_itself_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.opt_einsum, "enabled", False)  # it would find an order that takes less
    plan = runner.compile(runner.loads(WORKSPACE), limits=PlanLimits(memory=512 << 20))
    directory = create_run_directory(tmp_path, "run", datetime.now())
    with pytest.raises(
        runner.RunError, match=r"<stdin>:6:10 .*\n.*\n.* this does not fit into memory: it needs 4\.5 GiB"
    ):
        run_recorded(plan, directory)
    assert runner.open_run(directory).manifest["status"] == "failed"


@pytest.mark.slow
def test_an_expression_of_28_000_operations_is_planned() -> None:
    text = "parameters: {x: 1.0}\nexpression: |\n  y = x\n  for i in range(14000):\n    y = tanh(y * 1.5)\n  y\n"
    plan = runner.compile(runner.loads(text))
    assert sum(node.op != "placeholder" for node in plan.lowered.graph.nodes) == 28_000


def test_memory_that_ends_while_planning_is_a_fault_of_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise MemoryError

    monkeypatch.setattr(compiler, "_compile", fail)
    with pytest.raises(runner.ConfigError, match=r"there is not enough memory to plan this") as caught:
        runner.compile(runner.loads("{parameters: {x: 1}, expression: x}"))
    assert (caught.value.problems[0].line, caught.value.problems[0].path) == (1, "expression")


def test_what_is_only_looked_at_may_be_larger_than_the_machine() -> None:
    config = runner.loads("{parameters: {x: {shape: [10000, 1000000000], init: normal}}, expression: x.sum()}")
    with pytest.raises(runner.ConfigError, match=r"needs 36\.4 TiB"):
        runner.compile(config)
    plan = runner.compile(config, limits=PlanLimits(memory=1 << 30, runs=False))
    assert {problem.message for problem in plan.warnings} == {
        "the log would exceed its budget of 1.0 GiB: 2 rows of 72.8 TiB take 145.5 TiB",
        "this run needs about 72.8 TiB, but only 1.0 GiB are available",
    }


def test_estimates_count_tensors_gradients_state_and_rows() -> None:
    plan = compiled("""\
parameters: {w: {shape: [10, 10], init: ones}, frozen: {shape: [5], init: ones, requires_grad: false}}
constants: {c: {shape: [7], init: ones, dtype: float64}}
expression: loss = w.sum() * frozen.sum() * c.sum()
optimizer: {adam: {lr: 0.1}}
steps: [{repeat: {times: 4, steps: [backward, {step: , every: 2}, zero_grad]}}, forward]
""")
    assert plan.estimates.tensors == 400 + 20 + 56
    assert plan.estimates.gradients == 400
    assert plan.estimates.state == 2 * 400 + 4
    assert plan.estimates.rows == 1 + 4 + 2 + 4 + 1
    assert plan.estimates.row == 8 + 400 + 400 + 20


@over(
    "text",
    [
        "steps: 7\nlog: {every: 3}",
        "steps: 6\nlog: {every: 3}",
        "steps: [{repeat: {times: 5, steps: [{train: , every: 2}, forward]}}]\nlog: {every: 2}",
        "steps: [{repeat: {times: 3, steps: [forward, {repeat: {times: 4, steps: [train]}}]}}, step]\nlog: {every: 2}",
        "steps: [{repeat: {times: 0, steps: [train]}}, forward]",
        "steps: [{repeat: {times: 9, steps: [train, {stop: , when: iteration == 4}]}}]\nlog: {every: 3}",
    ],
)
def test_no_run_logs_more_rows_than_were_estimated(text: str) -> None:
    text = "parameters: {x: 1}\nexpression: x ** 2\noptimizer: {sgd: {lr: 0.1}}\n" + text
    rows, most = len(rows_of(text)), compiled(text).estimates.rows
    assert rows <= most
    if "stop" not in text and "every: 2}, forward" not in text:
        assert rows == most


LARGE = """\
parameters:
  w1: {shape: [1000, 5000], init: {normal: {std: 0.01}}}
  w2: {shape: [5000, 1000], init: {normal: {std: 0.01}}}
constants: {x: {shape: [64, 1000], init: normal}}
expression: |
  h = relu(x @ w1)
  loss = (h @ w2).square().mean()
optimizer: {adam: {lr: 0.001}}
steps: 3
log: {tensors: none}
"""

MEASURE = """\
import re, sys
import torch, runner, runner.plan, runner.engine
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024  # this program's alone
list(runner.execute(runner.compile(runner.loads("{parameters: {x: 1.0}, expression: x * 2}"))))
if sys.argv[1] == "fake":
    runner.compile(runner.loads("{parameters: {x: {shape: [20000000], init: ones}}, expression: x.sum()}"))
before = peak()
plan = runner.compile(runner.loads(sys.stdin.read()))
planned = peak() - before
if sys.argv[1] == "run":
    list(runner.execute(plan))
print(planned, peak() - before, plan.estimates.memory / 2**20)
"""


@cache
def measured(text: str, how: str) -> tuple[float, float, float]:
    """MiB that planning takes, that planning and, with "run", running take, and that the plan says."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, how], input=text, capture_output=True, text=True, cwd=ROOT, check=True
    )
    planned, ran, estimated = map(float, done.stdout.split())
    return planned, ran, estimated


@pytest.mark.slow
def test_a_model_of_ten_million_parameters_is_planned_without_its_memory() -> None:
    planned, _, estimated = measured(LARGE, "run")
    assert planned < 300
    assert estimated > 150
    planned, _, _ = measured(LARGE, "fake")
    assert planned < 100  # what torch imports for it has been imported


@pytest.mark.slow
def test_the_estimate_is_near_what_a_run_takes() -> None:
    _, ran, estimated = measured(LARGE, "run")
    assert estimated / 2 < ran < estimated * 2 + 100


def test_a_run_that_takes_more_than_the_limit_is_refused() -> None:
    config = runner.loads("{parameters: {w: {shape: [1000, 1000], init: ones}}, expression: (w * 2).sum()}")
    with pytest.raises(runner.ConfigError, match=r"more than the limit of 8.0 MiB|needs about .* MiB, but only"):
        runner.compile(config, limits=PlanLimits(memory=8 << 20))
    assert runner.compile(config, limits=PlanLimits(memory=64 << 20))


@pytest.mark.parametrize(
    ("budget", "expected"), [("GiB", 1000), ("2 * GiB", 2000), ("5000 - B", 4990), ("-B + 200", 190)]
)
def test_a_budget_may_read_a_constant_with_the_name_of_a_unit(budget: str, expected: int) -> None:
    constants = "constants: {GiB: 1000, B: 10}\n"
    plan = compiled(
        f"parameters: {{w: 1.0}}\n{constants}expression: f = w\nlog: {{budget: {budget}}}\nsteps: [forward]"
    )
    assert plan.log.budget == expected


@pytest.mark.parametrize("budget", ["1048576", "1 MiB", "1024KiB"])
def test_a_log_past_its_budget_is_refused_with_what_to_write_instead(budget: str) -> None:
    text = "parameters: {w: {shape: [1000], init: ones}}\nexpression: w.sum()\noptimizer: {sgd: {}}\nsteps: 1000\nlog: %s\n"
    with pytest.raises(
        runner.ConfigError, match=r"the log would exceed its budget of 1.0 MiB: 1,001 rows of 7.8 KiB take"
    ) as caught:
        compiled(text % f"{{budget: {budget}}}")
    (problem,) = caught.value.problems
    assert (problem.line, problem.hint) == (
        5,
        "write `log: {tensors: none}`, `log: {every: 100}` or a larger `log: {budget: …}`",
    )
    for log in (f"{{budget: {budget}, tensors: none}}", f"{{budget: {budget}, every: 100}}", "{budget: 0.1GB}"):
        compiled(text % log)


GALLERY = sorted((ROOT / "configs").glob("*.yaml"))
LARGER = {
    **{
        name: (ROOT / "configs" / f"{name}.yaml", ())
        for name in ("digits", "fine-tune-from-run", "fine-tuning", "gan", "transformer")
    },
    "parameter, its rows on their way": (ROOT / "configs" / "parameter.yaml", ("steps=100",)),
    "ten million parameters": (ROOT / "benchmarks" / "configs" / "transformer.yaml", ()),
}
"""What a process of its own is measured for: it takes more than importing torch and pyarrow."""

PEAKS = """
import re, sys, torch, runner
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) << 10
folder, configs, overrides = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
print(peak())
for config in configs:
    runner.run(config, overrides, runs_dir=folder)
    print(peak())
"""
on_linux = pytest.mark.skipif(
    sys.platform != "linux" or torch.version.cuda is not None, reason="a CPU build on Linux is stated"
)


def peaks(folder: Path, configs: Sequence[Path], *overrides: str) -> list[int]:
    """Bytes that a process has taken at most: once torch is imported, and after recording each run."""
    command = [sys.executable, "-c", PEAKS, str(folder), ",".join(map(str, configs)), *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
    return list(map(int, done.stdout.split()))


def stated(path: Path, *overrides: str) -> int:
    return runner.compile(runner.load(path, list(overrides))).estimates.peak


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("what", LARGER)
def test_the_stated_peak_is_near_what_a_recorded_run_takes(what: str, tmp_path: Path) -> None:
    path, overrides = LARGER[what]
    assert stated(path, *overrides) == pytest.approx(peaks(tmp_path, [path], *overrides)[-1], rel=0.2)


@on_linux
@pytest.mark.slow
def test_the_stated_peaks_of_small_runs_are_near_what_the_least_takes_and_all_in_one_process(tmp_path: Path) -> None:
    small = [path for path in GALLERY if path.stem not in LARGER]
    small.sort(key=lambda path: path.stem != "linear")
    _, least, *_, most = peaks(tmp_path, small)
    assert len(small) + 5 == len(GALLERY)
    for path in small:  # its own peak is between the two
        assert stated(path) == pytest.approx(least, rel=0.2), path
        assert stated(path) == pytest.approx(most, rel=0.2), path


def test_rows_on_their_way_to_the_disk_are_stated_up_to_their_bound() -> None:
    plan = compiled(
        "parameters: {w: {shape: [1000], init: ones}}\nexpression: w.sum()\nlog: {budget: 1_000_000_000_000}\nsteps: [{repeat: {times: 10, steps: [forward]}}]"
    )
    assert plan.estimates.waiting == 2 * 11 * (4 + 4000 + 4000)
    long = compiled(
        "parameters: {w: {shape: [1000], init: ones}}\nexpression: w.sum()\nlog: {budget: 1_000_000_000_000}\nsteps: [{repeat: {times: 1_000_000, steps: [forward]}}]"
    )
    assert long.estimates.waiting == 96 << 20
    assert long.estimates.peak == (290 << 20) + long.estimates.memory + (96 << 20)
