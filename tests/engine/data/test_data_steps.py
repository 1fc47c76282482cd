"""Steps that draw batches, against loops written by hand in PyTorch."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import runner
from runner.engine import initial_state
from runner.engine.data.orders import order
from tests.engine.data.by_hand import HEAD, SGD, START, X, Y, data, of, with_arrays
from tests.engine.running import compiled, copied, rows_of, same


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_arrays(tmp_path)


class ByHand:
    """The same training in plain PyTorch."""

    def __init__(self) -> None:
        self.w = torch.nn.Parameter(START.clone())
        self.optimizer = torch.optim.SGD([self.w], lr=0.5, momentum=0.9)

    def backward(self, x: Tensor, y: Tensor, share: int = 1) -> Tensor:
        loss = F.cross_entropy(x @ self.w, y)
        (loss / share).backward()
        return loss.detach()

    def train(self, *chosen: Tensor | slice) -> Tensor:
        """One step over some micro-batches; the mean loss."""
        self.optimizer.zero_grad()
        total = torch.stack([self.backward(X[part], Y[part], len(chosen)) for part in chosen])
        self.optimizer.step()
        found: Tensor = total[0] if len(chosen) == 1 else (sum(total[1:], start=total[0])) / len(chosen)
        return found


# for_each, epochs


def test_epochs_are_a_loop_over_the_first_source_with_one_train_a_batch(folder: Path) -> None:
    rows = rows_of(HEAD + data("batch_size: 5, shuffle: true") + SGD + "steps: {epochs: 3}\n", folder)
    hand = ByHand()
    expected = []
    for epoch in (1, 2, 3):
        for chosen in order(0, "train", epoch, 12).split(5):
            expected.append((hand.train(chosen), copied(hand.w)))
    assert len(rows) == 1 + 9
    for number, (row, (loss, w)) in enumerate(zip(rows[1:], expected, strict=True), 1):
        assert (row.path, row.iteration) == (f"for_each[{number}].train", number)
        assert same(row["loss"], loss)
        assert same(row["w"], w)


def test_a_shorter_last_batch_gives_values_of_its_own_shape(folder: Path) -> None:
    rows = rows_of(HEAD + data("batch_size: 5") + SGD + "steps: {epochs: 1}\n", folder)
    assert [tuple(row["scores"].shape) for row in rows[1:] if row["scores"] is not None] == [(5, 4), (5, 4), (2, 4)]
    columns = {column.name: column.shape for column in rows[0].columns}
    assert columns["scores"] is None
    assert columns["loss"] == ()


def test_drop_last_leaves_the_shorter_batch_out_and_the_shape_fixed(folder: Path) -> None:
    rows = rows_of(HEAD + data("batch_size: 5, drop_last: true") + SGD + "steps: {epochs: 2}\n", folder)
    assert len(rows) == 1 + 4
    assert {column.name: column.shape for column in rows[0].columns}["scores"] == (5, 4)


def test_sizes_are_fixed_for_each_length_of_batch(folder: Path) -> None:
    text = """
parameters: {w: {shape: [3], init: 1}}
expression: |
  n = x.shape[0]
  spread = zeros(n)
  for i in range(n):
      spread = spread + x[i] @ w / n
  f = spread.sum() + (1 if n > 4 else 100)
data: {train: {file: all.npz, columns: {x: x}, batch_size: 5}}
optimizer: {sgd: {lr: 0}}
steps: {epochs: 1}
"""
    for row, part in zip(rows_of(text, folder)[1:], X.split(5), strict=True):
        expected = sum((line.sum() / len(part) for line in part), start=torch.zeros(())) * len(part)
        torch.testing.assert_close(row["f"], expected + (1 if len(part) > 4 else 100))


def test_a_fresh_pass_begins_with_each_epoch_even_after_stop(folder: Path) -> None:
    steps = """
steps:
  - for_each:
      data: train
      steps:
        - train
        - {stop: , when: iteration == 2}
  - for_each: {data: train, epochs: 1, steps: [forward]}
"""
    rows = rows_of(HEAD + data() + SGD + steps, folder)
    hand = ByHand()
    assert [row.path for row in rows[1:]] == [
        "1.for_each[1].1.train",
        "1.for_each[2].1.train",
        "2.for_each[1].forward",
        "2.for_each[2].forward",
        "2.for_each[3].forward",
    ]
    for row, start in zip(rows[1:3], (0, 4), strict=True):
        assert same(row["loss"], hand.train(slice(start, start + 4)))
    for row, part in zip(rows[3:], X.split(4), strict=True):
        assert same(row["scores"], (part @ hand.w).detach())


def test_every_and_the_log_count_iterations_over_all_epochs(folder: Path) -> None:
    steps = "steps: [{for_each: {data: train, epochs: 2, steps: [train, {evaluate: test, every: 4}]}}]\n"
    rows = rows_of(HEAD + data() + SGD + steps + "log: {every: 4}\n", folder)
    assert [(row.step, row.iteration) for row in rows[1:]] == [("train", 4), ("evaluate", 4), ("train", 6)]


def test_no_epochs_are_no_steps(folder: Path) -> None:
    assert len(rows_of(HEAD + data() + SGD + "steps: {epochs: 0}\n", folder)) == 1


# whose batch


def test_train_draws_the_next_batch_and_data_null_keeps_it(folder: Path) -> None:
    steps = "steps: [train, train: {data: null}, forward, train, train, train]\n"
    rows = rows_of(HEAD + data() + SGD + steps, folder)
    hand = ByHand()
    parts = [slice(0, 4), slice(0, 4), None, slice(4, 8), slice(8, 12), slice(0, 4)]
    for row, part in zip(rows[1:], parts, strict=True):
        if part is not None:
            assert same(row["loss"], hand.train(part))
        else:
            assert same(row["loss"], F.cross_entropy(X[:4] @ hand.w, Y[:4]).detach())


def test_backward_and_forward_use_the_current_batch_which_is_drawn_on_first_use(folder: Path) -> None:
    steps = "steps: [forward, backward, next: train, forward, forward: {data: test}, next: [train, test], forward]\n"
    rows = rows_of(HEAD + data() + SGD + steps, folder)
    parts = [X[:4], X[:4], X[4:8], X[:3] * 2, X[8:12]]
    assert [row.step for row in rows[1:]] == ["forward", "backward", "forward", "forward", "forward"]
    for row, part in zip(rows[1:], parts, strict=True):
        assert same(row["scores"], part @ START)


def test_inside_a_loop_its_batch_is_taken_before_the_first_sources(folder: Path) -> None:
    steps = "steps: [{for_each: {data: test, steps: [forward, train: {data: train}]}}]\n"
    rows = rows_of(HEAD + data() + SGD + steps, folder)
    hand = ByHand()
    for number, part in enumerate((X[:7] * 2).split(3)):
        assert same(of(rows, "forward")[number]["scores"], (part @ hand.w).detach())
        assert same(of(rows, "train")[number]["loss"], hand.train(slice(4 * number, 4 * number + 4)))


def test_columns_of_two_sources_are_drawn_together(folder: Path) -> None:
    text = """
parameters: {w: {shape: [3], init: 1}}
expression: f = (real @ w).sum() - (noise @ w).sum()
data:
  faces: {file: all.npz, columns: {real: x}, batch_size: 5}
  noises: {file: part.npz, columns: {noise: x}, batch_size: 4}
optimizer: {sgd: {lr: 0}}
steps: 6
"""
    reals, noises = itertools.cycle(X.split(5)), itertools.cycle((X[:7] * 2).split(4))
    w = torch.ones(3)
    for row in rows_of(text, folder)[1:]:
        assert same(row["f"], (next(reals) @ w).sum() - (next(noises) @ w).sum())


def test_lbfgs_evaluates_again_on_the_same_batch(folder: Path) -> None:
    rows = rows_of(HEAD + data() + "optimizer: {lbfgs: {lr: 0.1, max_iter: 5}}\nsteps: {epochs: 2}\n", folder)
    w = torch.nn.Parameter(START.clone())
    optimizer = torch.optim.LBFGS([w], lr=0.1, max_iter=5)
    for row, start in zip(rows[1:], (0, 4, 8, 0, 4, 8), strict=True):
        first: list[Tensor] = []

        def closure(start: int = start, first: list[Tensor] = first) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(X[start : start + 4] @ w, Y[start : start + 4])
            loss.backward()  # type: ignore[no-untyped-call]
            first.append(loss.detach())
            return loss

        optimizer.step(closure)
        assert same(row["loss"], first[0])
        assert same(row["w"], w.detach())


# accumulate


def test_accumulated_micro_batches_are_averaged_equally(folder: Path) -> None:
    rows = rows_of(
        HEAD + data("batch_size: 2") + SGD + "steps: [train: {accumulate: 3}, train: {accumulate: 3}]\n", folder
    )
    hand = ByHand()
    for row, start in zip(rows[1:], (0, 6), strict=True):
        loss = hand.train(*(slice(start + at, start + at + 2) for at in (0, 2, 4)))
        assert same(row["loss"], loss)
        assert same(row["w"], hand.w.detach())
        assert same(row["w.grad"], hand.w.grad)


def test_accumulating_equals_the_full_batch_where_the_objective_is_a_mean(folder: Path) -> None:
    loop = "steps: [{{for_each: {{data: train, epochs: 5, steps: [train: {{accumulate: {}}}]}}}}]\n"
    full = rows_of(HEAD + data("batch_size: 6, shuffle: true") + SGD + loop.format(1), folder)
    micro = rows_of(HEAD + data("batch_size: 2, shuffle: true") + SGD + loop.format(3), folder)
    assert len(full) == len(micro) == 1 + 10
    for left, right in zip(full, micro, strict=True):
        for name in ("w", "w.grad", "loss"):
            torch.testing.assert_close(left[name], right[name])
    assert [row.path for row in micro[1:3]] == ["for_each[1].train", "for_each[2].train"]


def test_draws_of_a_loops_body_belong_to_its_pass(folder: Path) -> None:
    steps = "steps: [{for_each: {data: train, epochs: 2, steps: [forward, next: train, forward]}}]\n"
    rows = rows_of(HEAD + data("batch_size: 3") + SGD + steps, folder)
    assert len(rows) == 1 + 2 * 2 * 2
    for row, part in zip(rows[1:], itertools.cycle(X.split(3)), strict=False):
        assert same(row["scores"], part @ START)


# what varies, what is told


def test_an_assign_reads_a_value_whose_shape_varies(folder: Path) -> None:
    text = """
parameters:
  w: {shape: [3], init: 1}
  mean: {shape: [3], init: 0, requires_grad: false}
expression: |
  h = x * w
  f = h.sum()
data: {train: {file: all.npz, columns: {x: x}, batch_size: 5}}
optimizer: {sgd: {lr: 0}}
steps: [{for_each: {epochs: 1, steps: [train, assign: {mean: 'h.sum(0) / h.shape[0]'}]}}]
"""
    for row, part in zip(of(rows_of(text, folder), "assign"), X.split(5), strict=True):
        assert same(row["mean"], part.sum(0) / len(part))


def test_unused_sources_and_columns_are_named(folder: Path) -> None:
    text = """
parameters: {w: {shape: [3], init: 1}}
expression: f = (x @ w).sum()
data:
  train: {file: all.npz, columns: {x: x, y: y}}
  test: {file: part.npz, columns: {x: x}}
optimizer: {sgd: {lr: 0}}
steps: {epochs: 1}
"""
    warnings = [problem.message for problem in compiled(text, folder).warnings]
    assert warnings == ["the column `y` of `train` is not used", "no step uses the data source `test`"]


def test_the_same_file_gives_the_same_batches_in_any_order_of_sources(folder: Path) -> None:
    one = data("batch_size: 5, shuffle: true", "batch_size: 3, shuffle: true").splitlines()
    other = "\n".join((one[0], one[2], one[1])) + "\n"
    loop = "steps: [{for_each: {data: train, epochs: 2, steps: [train]}}]\n"
    left, right = (rows_of(HEAD + text + SGD + loop, folder) for text in ("\n".join(one) + "\n", other))
    for a, b in zip(left, right, strict=True):
        assert same(a["w"], b["w"])


def test_a_run_that_goes_on_from_its_cursors_ends_in_the_same_bits(folder: Path) -> None:
    plan = compiled(HEAD + data("batch_size: 5, shuffle: true") + SGD + "steps: {epochs: 3}\n", folder)
    expected = list(runner.execute(plan))
    state = initial_state(plan)
    rows = runner.execute(plan, state)
    found = [next(rows) for _ in range(5)]
    cursor = state.batches["train"]
    place = (cursor.epoch, cursor.position, cursor.drawn)
    state.batches = initial_state(plan).batches
    state.batches["train"].restore(*place)
    found += runner.execute(plan, state)
    for left, right in zip(expected, found, strict=True):
        assert (left.number, left.path) == (right.number, right.path)
        assert all(same(left[name], right[name]) for name in left)
