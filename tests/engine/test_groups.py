"""Rows hold many small tensors of one shape as one tensor; what they show, and what is recorded, does not change."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from torch import Tensor

import runner
from runner.engine import eager, engines, initial_state
from runner.plan.rows import layout
from tests.engine.running import compiled, numbers, same
from tests.tables import over

COUNT = 10
NAMES = [f"p{number}" for number in range(COUNT)]
MANY = f"""
parameters:
{"".join(f"  p{number}: {{shape: [3], init: {number / 8 - 0.5}}}{chr(10)}" for number in range(COUNT))}
  other: {{shape: [2], init: 0.25}}
expression: |
  loss = (cat([{", ".join(NAMES)}]) ** 4).sum() + (other ** 2).sum()
"""
TRAIN = "[repeat: {times: 6, steps: [train]}]"


def by_hand(make: Callable[[Sequence[Tensor]], torch.optim.Optimizer], steps: int) -> Iterator[dict[str, Any]]:
    """Yields the loss, the weights and the gradients after each step of the same training."""
    held = [torch.full((3,), number / 8 - 0.5, requires_grad=True) for number in range(COUNT)]
    held.append(torch.full((2,), 0.25, requires_grad=True))
    optimizer = make(held)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (torch.cat(held[:COUNT]) ** 4).sum() + (held[COUNT] ** 2).sum()
        loss.backward()
        optimizer.step()
        named = [*zip([*NAMES, "other"], held, strict=True)]
        weights = {name: each.detach().clone() for name, each in named}
        yield {
            "loss": loss.detach(),
            **weights,
            **{f"{name}.grad": each.grad.clone() for name, each in named if each.grad is not None},
        }


OPTIMIZERS: list[tuple[str, Callable[[Sequence[Tensor]], torch.optim.Optimizer]]] = [
    ("sgd: {lr: 0.1}", lambda held: torch.optim.SGD(held, lr=0.1)),
    ("sgd: {lr: 0.1, momentum: 0.9}", lambda held: torch.optim.SGD(held, lr=0.1, momentum=0.9)),
    ("adam: {lr: 0.1}", lambda held: torch.optim.Adam(held, lr=0.1)),
    ("rmsprop: {lr: 0.1}", lambda held: torch.optim.RMSprop(held, lr=0.1)),
]


@over(("optimizer", "make"), OPTIMIZERS)
@over("shared", [False, True])
@over("program", [TRAIN, "[repeat: {times: 6, steps: [zero_grad, backward, step]}]"])
def test_rows_have_the_bits_of_torch(
    optimizer: str, make: Callable[[Sequence[Tensor]], torch.optim.Optimizer], shared: bool, program: str
) -> None:
    plan = compiled(f"{MANY}optimizer: {{{optimizer}}}\nsteps: {program}")
    rows = list(runner.execute(plan, shared=shared))  # kept: later steps must not write into them
    assert len(rows[0].layout.groups) == 2
    assert all(rows[0][f"{name}.grad"] is None for name in NAMES)
    last = [row for row in rows if row.step in ("train", "step")]
    for row, expected in zip(last, by_hand(make, 6), strict=True):
        wrong = [name for name, value in expected.items() if row.step == "train" or name != "loss"]
        assert [name for name in wrong if not same(row[name], expected[name])] == []


PROGRAMS = {
    "one by one": "[backward, expect: {p3.grad: -0.0078125}, step, zero_grad, train]",
    "some gradients": "[backward: {parameters: [p1, p2]}, step, backward, clip_grad_norm: 0.5, step]",
    "assigned": "[train, assign: {p3: p3 + 1, other: other * 2}, assign: {p2.grad: p2.grad * 3}, train]",
    "accumulated": "[backward, backward, step, zero_grad: {set_to_none: false}]",
    "clipped": "[repeat: {times: 3, steps: [train: {clip_grad_norm: 0.1}]}]",
    "every": "[repeat: {times: 7, steps: [train, {stop: , when: loss < 0.8}]}]\nlog: {every: 3}",
    "thinned": "[repeat: {times: 7, steps: [train]}]\nlog: {every: 3}",
    "chosen": f"{TRAIN}\nlog: {{include: [loss, p1, p2.grad, 'p?']}}",
    "with state": f"{TRAIN}\nlog: {{state: true}}",
    "evaluated later": "[train, forward, train]",
}


@pytest.mark.slow
@over(("name", "program"), PROGRAMS.items())
@over("optimizer", ["sgd: {lr: 0.1}", "adam: {lr: 0.1}", "lbfgs: {lr: 0.1}"])
def test_rows_show_what_rows_with_a_tensor_for_each_show(name: str, program: str, optimizer: str) -> None:
    if optimizer.startswith("lbfgs") and "clip" in program:
        return  # lbfgs computes its gradients again, so there is nothing to clip
    plan = compiled(f"{MANY}optimizer: {{{optimizer}}}\nsteps: {program}")
    grouped, apart = list(runner.execute(plan)), list(eager.execute(plan))
    assert not apart[0].layout.groups
    assert [row.path for row in grouped] == [row.path for row in apart]
    for row, other in zip(grouped, apart, strict=True):
        found, expected = numbers(row), numbers(other)
        assert [each for each in expected if not same(found[each], expected[each])] == []
        assert [row.has(place) for place in range(len(row.columns))] == [
            value is not None for value in expected.values()
        ]


@pytest.mark.slow
@over("kept", ["full", "stats", "digest"])
@over("shape", ["[3]", "[]"])
def test_files_have_the_same_bytes(kept: str, shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{MANY}optimizer: {{sgd: {{lr: 0.1}}}}\nsteps: {TRAIN}\nlog: {{tensors: {kept}}}"
    if shape == "[]":
        text = text.replace("shape: [3], ", "").replace("cat(", "stack(")
    (tmp_path / "many.yaml").write_text(text)
    grouped = runner.run(tmp_path / "many.yaml", runs_dir=tmp_path / "grouped")
    with monkeypatch.context() as patched:
        patched.setattr(layout, "LEAST_TOGETHER", COUNT + 1)
        apart = runner.run(tmp_path / "many.yaml", runs_dir=tmp_path / "apart")
    files = [[part.path.read_bytes() for part in run.parts] for run in (grouped, apart)]
    assert files[0] == files[1]
    table = pyarrow.parquet.read_table(grouped.parts[0].path)
    assert (
        table["p3.grad" if kept == "full" or shape == "[]" else f"p3.grad.{kept if kept == 'digest' else 'mean'}"][
            0
        ].as_py()
        is None
    )


def test_a_weight_that_is_not_finite_is_named() -> None:
    text = f"{MANY}optimizer: {{sgd: {{lr: 1e38}}}}\nsteps: {TRAIN}".replace("init: -0.125", "init: 20")
    messages = []
    for execute in (runner.execute, eager.execute):
        with pytest.raises(runner.RunError, match=r"`p3` is -inf at \[0\], after step 1 of `sgd`") as error:
            list(execute(compiled(text)))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_a_run_goes_on_from_a_state_in_the_same_bits() -> None:
    plan = compiled(f"{MANY}optimizer: {{adam: {{lr: 0.1}}}}\nsteps: {TRAIN}")
    whole = list(runner.execute(plan))
    state = initial_state(plan)
    rows = runner.execute(plan, state)
    first = [next(rows) for _ in range(3)]
    del rows
    rest = list(runner.execute(plan, state))
    for row, expected in zip([*first, *rest], whole, strict=True):
        assert all(same(row[name], expected[name]) for name in expected)


# garbage collection


@contextmanager
def collecting() -> Iterator[None]:
    """Garbage collection as in a new process: on, with nothing frozen."""
    enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.unfreeze()
    gc.enable()
    try:
        yield
    finally:
        if frozen:
            gc.freeze()
        if not enabled:
            gc.disable()


@pytest.mark.slow
def test_objects_older_than_a_long_run_are_left_alone_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = compiled(f"{MANY}optimizer: {{sgd: {{lr: 0.1}}}}\nsteps: {TRAIN}")
    with collecting():
        next(rows := runner.execute(plan))
        assert gc.get_freeze_count() == 0  # a short run
        monkeypatch.setattr(engines, "LONG", 0)
        rows = runner.execute(plan)
        assert gc.get_freeze_count() == 0
        next(rows)
        assert gc.get_freeze_count() > 0
        inner = list(runner.execute(plan))
        assert len(inner) == 7
        assert gc.get_freeze_count() > 0
        del rows  # abandoned
        assert gc.get_freeze_count() == 0


@pytest.mark.slow
def test_garbage_collection_that_is_off_or_frozen_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "LONG", 0)
    plan = compiled(f"{MANY}optimizer: {{sgd: {{lr: 0.1}}}}\nsteps: {TRAIN}")
    with collecting():
        gc.freeze()
        try:
            frozen = gc.get_freeze_count()
            list(runner.execute(plan))
            assert 0 < gc.get_freeze_count() <= frozen  # what ends in the meantime leaves the frozen ones
        finally:
            gc.unfreeze()
        gc.disable()
        next(rows := runner.execute(plan))
        assert (gc.isenabled(), gc.get_freeze_count()) == (False, 0)
        del rows
        gc.enable()
        with pytest.raises(runner.RunError, match="`loss` is inf"):
            list(runner.execute(compiled(f"{MANY}optimizer: {{sgd: {{lr: 1e38}}}}\nsteps: {TRAIN}")))
        assert gc.get_freeze_count() == 0


def test_the_other_engines_hold_each_tensor_apart() -> None:
    plan = compiled(f"{MANY}optimizer: {{sgd: {{lr: 0.1}}}}\nsteps: {TRAIN}")
    assert next(runner.execute(plan)).layout.groups
    assert not next(eager.execute_several(plan)).layout.groups  # as the others call it
