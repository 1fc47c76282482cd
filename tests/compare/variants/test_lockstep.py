"""Two variants in lockstep: each runs as it runs alone, and a step begun anew is that step alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

import runner
from runner.catalogue import shipped_rules
from runner.compare.variants import lockstep as module
from runner.compare.variants.error_table import tabulate_errors
from runner.compare.variants.lockstep import (
    WHOLE_LOG,
    RowPair,
    Side,
    common_columns,
    common_dtype,
    lockstep,
    own_state,
    without_stops,
)
from runner.compare.variants.rule_override import rule_override
from runner.config import overridden
from runner.engine import initial_state
from runner.engine.binding import Binding
from runner.engine.steps.step_code import Run
from runner.errors import ComparisonError
from runner.plan import Plan
from runner.plan.program.instructions import Action
from tests.optim.test_shipped_rules import OTHERS, TWINS

DESCENT = """\
parameters: {w: {shape: [3], init: {normal: {}}}}
constants: {x: {shape: [5, 3], init: {normal: {}}}, y: {shape: [5], init: {normal: {}}}}
expression: loss = ((x @ w - y) ** 2).mean()
optimizer: {sgd: {lr: 0.1}}
steps: 20
"""


def plan_of(text: str, *overrides: str, base: Path | str = ".") -> Plan:
    return without_stops(runner.compile(runner.loads(text, base=base, overrides=[*WHOLE_LOG, *overrides])))


def values(row: object, names: list[str]) -> list[Tensor | None]:
    return [row[name] for name in names]  # type: ignore[index]


def assert_same(one: object, another: object, names: list[str]) -> None:
    for name, a, b in zip(names, values(one, names), values(another, names), strict=True):
        assert (a is None) == (b is None), name
        if a is not None and b is not None:
            assert a.dtype == b.dtype
            assert torch.equal(a.nan_to_num(), b.nan_to_num()), name


def test_the_local_error_of_a_step_is_that_of_the_step_taken_in_float64_by_hand() -> None:
    this, other = plan_of(DESCENT), plan_of(DESCENT, "dtype=float64")
    start = initial_state(this)
    rows = list(lockstep(Side(this), Side(other), reinject=True))
    double, before = start.parameters["w"].detach().double(), rows[0].this
    x, y = start.constants["x"].double(), start.constants["y"].double()
    for row in rows[1:]:
        assert before is not None
        assert row.this is not None
        assert row.other is not None
        assert row.local is not None
        single = before["w"]
        assert single is not None
        assert torch.equal(row.local["w"], descent(single.double(), x, y).float())
        double = descent(double, x, y)
        assert torch.equal(row.other["w"], double.float())
        before = row.this


def test_a_step_that_begins_anew_is_bound_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[str] = []
    bind = module.eager.bind_step

    def counted(binding: Binding, position: int, action: Action) -> Run:
        bound.append(action.kind)
        return bind(binding, position, action)

    monkeypatch.setattr(module.eager, "bind_step", counted)  # the engine's own default is another name for it
    steps = "[{repeat: {times: 6, steps: [backward, step, zero_grad]}}, train, train]"
    plans = [plan_of(DESCENT.replace("steps: 20", f"steps: {steps}"), *given) for given in ((), ("dtype=float64",))]
    rows = list(lockstep(Side(plans[0]), Side(plans[1]), reinject=True))
    assert len(rows) == 21
    assert all(row.local is not None for row in rows)
    assert len(bound) == 5


def descent(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """One step of gradient descent on the mean square, as the derivative is written in a book."""
    leaf = w.clone().requires_grad_()
    ((x @ leaf - y) ** 2).mean().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, 2 / len(y) * x.T @ (x @ w - y))
    return w.add(leaf.grad, alpha=-0.1)


SCALED = DESCENT.replace("(x @ w - y)", "(x @ w - y).float()").replace("steps: 20", "steps: 7") + (
    "autocast: {dtype: float16, loss_scale: {init_scale: 8, growth_interval: 2}}\n"
)


def test_a_step_that_begins_anew_has_the_loss_scale_of_this_side() -> None:
    this, other = plan_of(SCALED), plan_of(SCALED, "autocast.loss_scale.init_scale=2")
    rows = list(lockstep(Side(this), Side(other), reinject=True))[1:]
    scales = [8, 8, 16, 16, 32, 32, 64]  # it doubles after every two steps
    for which, expected in (("this", scales), ("local", scales), ("other", [scale / 4 for scale in scales])):
        assert [getattr(row, which)["loss_scale"].item() for row in rows] == expected


def test_a_side_without_a_loss_scale_begins_a_step_anew_without_it() -> None:
    this, other = plan_of(SCALED), plan_of(SCALED, "~autocast.loss_scale")
    start = initial_state(this)
    x, y = start.constants["x"], start.constants["y"]
    for one, another in ((this, other), (other, this)):
        rows = list(lockstep(Side(one), Side(another), reinject=True))
        for before, row in itertools.pairwise(rows):
            assert before.this is not None
            assert row.local is not None
            leaf = before.this["w"].detach().clone().requires_grad_()  # type: ignore[union-attr]
            with torch.autocast("cpu", dtype=torch.float16):
                loss = ((x @ leaf - y).float() ** 2).mean()
            loss.backward()
            assert leaf.grad is not None
            assert torch.equal(row.local["w"], leaf.detach().add(leaf.grad, alpha=-0.1))  # a scale of 2 ** n is exact


RULE = """{rule: {state: {m: 0}, update: "m = 0.9 * m + grad\\nparam = param - 0.1 * m"}}"""
ACCUMULATING = """
  - repeat:
      times: 4
      steps: [backward, backward, step, {zero_grad: , when: iteration == 2}]
"""
ASSIGNING = """
  - repeat:
      times: 5
      steps: [backward, {assign: {w: w - loss * w.grad}}, {zero_grad: {set_to_none: false}}]
"""


def test_both_sides_start_from_the_same_draws_in_their_own_dtypes() -> None:
    text = (
        "parameters:\n  w: {shape: [4], init: {normal: {}}}\n"
        "  copy: {init: {expression: w * third}, requires_grad: false}\n"
        "constants: {third: 1 / 3, n: {shape: [4], init: 0.1}}\nexpression: (w * n).sum() + copy.sum()\n"
    )
    this, other = plan_of(text), plan_of(text, "dtype=float64")
    drawn = initial_state(this).parameters["w"].detach()
    rows = list(lockstep(Side(this), Side(other), reinject=True))
    last = rows[-1]
    assert last.this is not None
    assert last.other is not None
    for row in rows:
        for side in (row.this, row.other, row.local):
            assert side is not None
            assert torch.equal(side["w"], drawn)
    assert torch.equal(last.other["copy"], (drawn.double() / 3).float())
    assert torch.equal(last.other["value"], ((drawn.double() * 0.1).sum() + (drawn.double() * (1 / 3)).sum()).float())
    moved = next(lockstep(Side(this), Side(plan_of(text, "dtype=float64", "seed=1"))))
    assert moved.other is not None
    assert not torch.equal(moved.other["w"], drawn)


PROGRAMS = {
    "sgd": DESCENT,
    "momentum": DESCENT.replace("{lr: 0.1}", "{lr: 0.1, momentum: 0.9, nesterov: true}"),
    "adam": DESCENT.replace("sgd: {lr: 0.1}", "adam: {lr: 0.1}"),
    "scheduled": DESCENT.replace("lr: 0.1", "lr: 0.1 / t"),
    "rule": DESCENT.replace("{sgd: {lr: 0.1}}", RULE),
    "lbfgs": DESCENT.replace("sgd: {lr: 0.1}", "lbfgs: {max_iter: 3}"),
    "random": DESCENT.replace("(x @ w - y)", "(dropout(x, 0.5, training) @ w - y)"),
    "accumulating": DESCENT.replace("steps: 20", f"steps: {ACCUMULATING}"),
    "assigning": DESCENT.replace("optimizer: {sgd: {lr: 0.1}}\nsteps: 20", f"steps: {ASSIGNING}"),
    "complex": DESCENT.replace("parameters: {", "parameters: {z: {init: [1.0, 2.0], dtype: complex64}, ").replace(
        ".mean()", ".mean() + (z.abs() ** 2).sum()"
    ),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_reinjecting_an_identical_variant_gives_no_error_in_any_row(program: str) -> None:
    plans = [plan_of(PROGRAMS[program], "log.state=true") for _ in range(2)]
    names = [column.name for column in plans[0].columns]
    alone = list(runner.execute(plans[0]))
    rows = list(lockstep(Side(plans[0]), Side(plans[1]), reinject=True))
    assert len(rows) == len(alone) > 4
    for row, expected in zip(rows, alone, strict=True):
        assert row.this is not None
        assert (row.this.number, row.this.path) == (expected.number, expected.path)
        for side in (row.this, row.other, row.local):
            assert_same(side, expected, names)


def test_reinjecting_draws_the_batches_of_this_side(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "data.npz", x=numpy.random.default_rng(0).normal(size=(7, 3)), y=numpy.arange(7.0))
    text = (
        "parameters: {w: {shape: [3], init: {normal: {}}}}\n"
        "data: {train: {file: data.npz, columns: {x: x, y: y}, batch_size: 2, shuffle: true}}\n"
        "expression: loss = ((x @ w - y) ** 2).mean()\noptimizer: {adam: {lr: 0.1}}\n"
        "steps: [{for_each: {data: train, epochs: 2, steps: [train, {evaluate: train}]}}, train]\n"
    )
    this = plan_of(text, base=tmp_path)
    names = [column.name for column in this.columns]
    rows = list(lockstep(Side(this), Side(plan_of(text, base=tmp_path)), reinject=True))
    for row, expected in zip(rows, runner.execute(this), strict=True):
        assert_same(row.this, expected, names)
        assert_same(row.local, expected, names)


def test_a_side_that_left_steps_out_goes_on_from_where_this_side_is(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "data.npz", x=numpy.random.default_rng(0).normal(size=(7, 3)))
    text = (
        "parameters: {w: {shape: [3], init: {normal: {}}}}\nconstants: {left_out: 0}\n"
        "data: {train: {file: data.npz, columns: {x: x}, batch_size: 2, shuffle: true}}\n"
        "expression: loss = ((dropout(x, 0.5, training) @ w - 1) ** 2).mean()\noptimizer: {sgd: {lr: 0.1 / t}}\n"
        "steps: [{repeat: {times: 6, steps: [{train: , when: iteration != left_out}, zero_grad]}}]\n"
    )
    this, other = plan_of(text, base=tmp_path), plan_of(text, "left_out=3", base=tmp_path)
    names = [column.name for column in this.columns]
    rows = [row for row in lockstep(Side(this), Side(other), reinject=True) if row.this is not None]
    assert [row.this.path for row in rows if row.this and row.local is None] == ["repeat[3].1.train"]
    for row in rows:
        if row.local is not None:
            assert_same(row.local, row.this, names)


def test_each_side_runs_as_it_runs_alone() -> None:
    text = PROGRAMS["random"]
    this, other = plan_of(text), plan_of(text, "optimizer={adam: {lr: 0.1}}")
    names = [column.name for column in this.columns]
    before = torch.get_rng_state()
    rows = list(lockstep(Side(this), Side(other), reinject=True))
    assert torch.equal(torch.get_rng_state(), before)
    for row, one, another in zip(rows, runner.execute(this), runner.execute(other), strict=True):
        assert_same(row.this, one, names)
        assert_same(row.other, another, names)


def test_a_step_begun_anew_keeps_its_own_optimizer_where_the_kinds_differ() -> None:
    this, other = plan_of(PROGRAMS["adam"]), plan_of(PROGRAMS["momentum"])
    assert own_state(this, other) == ["optimizer"]
    assert own_state(this, this) == []
    rows = list(lockstep(Side(this), Side(other), reinject=True))
    velocity = torch.zeros(3)
    for before, row in itertools.pairwise(rows):
        assert before.this is not None
        assert row.local is not None
        gradient, start = row.local["w.grad"], before.this["w"]
        assert gradient is not None
        assert start is not None
        velocity = 0.9 * velocity + gradient if row.this is not None and row.this.number > 1 else gradient
        torch.testing.assert_close(row.local["w"], start - 0.1 * (gradient + 0.9 * velocity))


@pytest.mark.parametrize("rule", TWINS)
@pytest.mark.parametrize("other", [False, True])
def test_an_optimizer_and_its_rule_are_within_4_ulp(rule: str, other: bool) -> None:
    name, fixed = TWINS[rule]
    arguments = fixed | (OTHERS[rule][1] if other and rule in OTHERS else {})
    written = {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()}
    text = (
        "parameters: {w: {shape: [6, 5], init: {normal: {}}}}\nconstants: {g: {shape: [6, 5], init: {normal: {}}}}\n"
        f"expression: (w * g).sum()\noptimizer: {{{name.lower()}: {written | {'lr': 0.1}}}}\nsteps: 20\n"
    ).replace("True", "true")
    config = runner.loads(text, overrides=["log.include=[w]"])
    variant = overridden(config, [rule_override("optimizer", rule, config)])
    this, ruled = runner.compile(config), runner.compile(variant)
    assert ruled.optimizers["optimizer"].kind == "rule"
    table = tabulate_errors(lockstep(Side(this), Side(ruled)), this, ruled)
    assert (table.rows, table.tensors) == (21, 1)
    assert all(trend.ulp is not None and trend.ulp <= 4 for trend in table.trends)
    moved = [*runner.execute(ruled)][-1]["w"]
    assert moved is not None
    assert (moved - initial_weight(this)).abs().min() > 1e-4


def initial_weight(plan: Plan) -> Tensor:
    found = next(iter(runner.execute(plan)))["w"]
    assert found is not None
    return found


def test_every_rule_with_a_class_is_held_to_it() -> None:
    assert sorted(TWINS) == sorted(set(shipped_rules()) - {"lion"})


def test_rows_that_one_side_has_alone_stand_alone() -> None:
    text = DESCENT.replace("steps: 20", "steps: [{repeat: {times: 6, steps: [train, {stop: , when: iteration == n}]}}]")
    text = text.replace("constants: {", "constants: {n: 4, ")
    rows = list(lockstep(Side(plan_of(text)), Side(plan_of(text, "n=2")), reinject=True))
    assert [row.other is None for row in rows] == [False, False, False, True, True]
    assert [row.local is None for row in rows] == [False, False, False, True, False]  # after row 2 it stops


def test_a_step_begun_anew_that_goes_elsewhere_is_no_row() -> None:
    text = DESCENT.replace(
        "steps: 20", "steps: [{forward: , when: w.sum() < c}, {backward: , when: w.sum() >= c}, step]"
    ).replace("constants: {", "constants: {c: 100, ")
    rows = list(lockstep(Side(plan_of(text)), Side(plan_of(text, "c=-100")), reinject=True))
    first = next(row for row in rows if row.this is not None and row.this.step == "forward")
    assert first.local is None


def test_an_expect_that_does_not_hold_ends_no_comparison() -> None:
    text = DESCENT.replace("steps: 20", "steps: [train, {expect: {w.sum(): 1e9}}, train]")
    plan = plan_of(text)
    assert [row.this is not None and row.this.path for row in lockstep(Side(plan), Side(plan))] == [
        "start",
        "1.train",
        "3.train",
    ]


def test_a_side_that_overflows_ends_no_comparison() -> None:
    text = DESCENT.replace("lr: 0.1", "lr: 1e30")
    rows = list(lockstep(Side(plan_of(text)), Side(plan_of(text, "dtype=float64"))))
    assert len(rows) == 21
    last = rows[-1]
    assert last.this is not None
    assert last.this["w"] is not None
    assert not last.this["w"].isfinite().any()


def test_a_side_runs_on_its_own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def watched(plan: Plan, *more: object, **options: object) -> Iterator[runner.Row]:
        for row in runner.execute(plan, *more, **options):  # type: ignore[arg-type]
            seen.append(torch.get_num_threads())
            yield row

    monkeypatch.setattr(module, "execute", watched)
    before = torch.get_num_threads()
    plan = plan_of(DESCENT, "steps=2")
    for row in lockstep(Side(plan), Side(plan, threads=before + 2)):
        assert isinstance(row, RowPair)
        assert torch.get_num_threads() == before
    assert sorted(seen) == [before] * 3 + [before + 2] * 3


@pytest.mark.parametrize(
    ("one", "another", "common"),
    [
        (torch.float32, torch.float64, torch.float32),
        (torch.bfloat16, torch.float16, torch.bfloat16),
        (torch.complex128, torch.complex64, torch.complex64),
        (torch.int64, torch.int64, torch.int64),
        (torch.int64, torch.int32, None),
        (torch.float32, torch.complex64, None),
        (torch.bool, torch.float32, None),
    ],
)
def test_two_dtypes_are_compared_in_the_narrower(
    one: torch.dtype, another: torch.dtype, common: torch.dtype | None
) -> None:
    assert common_dtype(one, another) == common_dtype(another, one) == common


def test_columns_of_dtypes_of_other_kinds_are_left_as_they_are() -> None:
    text = "parameters: {x: 2}\nexpression: |\n  k = %s\n  x * 3\nsteps: [{forward: k}, backward]\n"
    mine, theirs = common_columns(plan_of(text % "x > 1"), plan_of(text % "x + 1", "dtype=float64"))
    shared = [("value", torch.float32), ("x", torch.float32), ("x.grad", torch.float32)]
    assert [(column.name, column.dtype) for column in mine] == [("k", torch.bool), *shared]
    assert [(column.name, column.dtype) for column in theirs] == [("k", torch.float64), *shared]


BESIDE = "a step cannot start from the other side's state: the "


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("steps=30", "steps differ, `a loop of 20` here is `a loop of 30` there"),
        ("steps=[train]", "steps differ, `a loop of 20` here is `train` there"),
        ("parameters.v=1", "parameters differ, `nothing` here is `v []` there"),
        ("parameters.w.shape=[3, 1]", "parameters differ, `w [3]` here is `w [3, 1]` there"),
        ("optimizers={a: {sgd: {}, parameters: [w]}}", "optimizers differ, `optimizer` here is `a` there"),
    ],
)
def test_a_step_begins_from_the_state_of_the_same_program_alone(override: str, told: str) -> None:
    this = plan_of(DESCENT)
    text = DESCENT.replace(".mean()", ".mean() + v") if "v=" in override else DESCENT
    with pytest.raises(ComparisonError, match=r"the .* differ, ") as raised:
        list(lockstep(Side(this), Side(plan_of(text, override)), reinject=True))
    assert raised.value.problems[0].message == BESIDE + told.replace("`nothing`", "nothing")
    assert raised.value.exit_code == 2
