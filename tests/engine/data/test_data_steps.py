"""Steps that draw batches, against loops written by hand in PyTorch."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import runner
from runner.engine import initial_state
from runner.engine.data.orders import order
from tests.engine.running import compiled, copied, rows_of, same

X = torch.from_numpy(numpy.random.default_rng(0).normal(size=(12, 3)).astype("float32"))
Y = torch.from_numpy(numpy.random.default_rng(1).integers(0, 4, 12))
START = (torch.arange(12.0).reshape(3, 4) - 6) / 20

HEAD = """
parameters:
  w: {shape: [3, 4], init: {expression: "(arange(12.0).reshape(3, 4) - 6) / 20"}}
expression: |
  scores = x @ w
  loss = cross_entropy(scores, y)
metrics:
  accuracy: (scores.argmax(1) == y).to(float32).mean()
"""
SGD = "optimizer: {sgd: {lr: 0.5, momentum: 0.9}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    numpy.savez(tmp_path / "all.npz", x=X.numpy(), y=Y.numpy())
    numpy.savez(tmp_path / "part.npz", x=X[:7].numpy() * 2, y=Y[:7].numpy())
    return tmp_path


def data(train: str = "batch_size: 4", test: str = "batch_size: 3") -> str:
    columns = "columns: {x: x, y: y}"
    return f"data:\n  train: {{file: all.npz, {columns}, {train}}}\n  test: {{file: part.npz, {columns}, {test}}}\n"


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


def of(rows: list[runner.Row], step: str) -> list[runner.Row]:
    return [row for row in rows if row.step == step]


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


# evaluate


def test_evaluate_is_the_mean_over_all_samples(folder: Path) -> None:
    rows = rows_of(
        HEAD + data() + SGD + "steps: [evaluate: test, evaluate: {data: train, metrics: accuracy}]\n", folder
    )
    x, y = X[:7] * 2, Y[:7]
    parts = list(zip(x.split(3), y.split(3), strict=True))
    total = sum((F.cross_entropy(a @ START, b).double() * len(a) for a, b in parts), start=torch.zeros(()).double())
    assert same(rows[1]["test.loss"], (total / 7).float())
    torch.testing.assert_close(rows[1]["test.loss"], F.cross_entropy(x @ START, y))
    torch.testing.assert_close(rows[1]["test.accuracy"], ((x @ START).argmax(1) == y).float().mean())
    torch.testing.assert_close(rows[2]["train.loss"], F.cross_entropy(X @ START, Y))
    assert rows[1]["train.loss"] is None
    assert "loss" not in rows[1]


def test_evaluate_leaves_everything_untouched(folder: Path) -> None:
    """Weights, gradients, optimizer state, batches, counters and random numbers, bit for bit."""
    head = HEAD.replace("scores = x @ w", "scores = dropout(x @ w, 0.5, training) + 0.1 * randn(4)")
    train = "{train: {data: train}}"
    loop = "steps: [{{for_each: {{data: test, epochs: 3, steps: [{}]}}}}]\n"
    sources = data("batch_size: 5, shuffle: true", "batch_size: 4, shuffle: true")
    plain = compiled(head + sources + SGD + loop.format(f"forward, {train}"), folder)
    evaluates = "{evaluate: test}, {evaluate: train}"
    watched = compiled(
        head + sources + SGD + loop.format(f"{evaluates}, forward, {evaluates}, {train}, {evaluates}"), folder
    )
    states = [initial_state(plain), initial_state(watched)]
    rows = [list(runner.execute(plan, state)) for plan, state in zip((plain, watched), states, strict=True)]
    rows[1] = [row for row in rows[1] if row.step != "evaluate"]
    for left, right in zip(*rows, strict=True):
        assert left.step == right.step
        for name in left:
            assert same(left[name], right[name]), name
    tensors = [state.tensors() for state in states]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(same(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert states[0].evaluations == states[1].evaluations
    cursors = [[(it.epoch, it.position, it.batch["x"].tolist()) for it in state.batches.values()] for state in states]
    assert cursors[0] == cursors[1]


def test_training_is_false_in_evaluate_and_true_elsewhere(folder: Path) -> None:
    text = """
parameters: {w: {shape: [3], init: 1}}
expression: |
  flag = 1.0 if training else 0.0
  f = (x @ w).mean() * 0 + flag
data: {train: {file: all.npz, columns: {x: x}, batch_size: 5}}
optimizer: {sgd: {lr: 0}}
steps: [train, forward, evaluate: train, backward]
"""
    rows = rows_of(text, folder)
    assert [row["f"].item() for row in rows[1:] if row["f"] is not None] == [1, 1, 1]
    assert [row["train.f"].item() for row in rows[1:] if row["train.f"] is not None] == [0]


def test_results_of_evaluate_are_read_by_later_steps(folder: Path) -> None:
    steps = """
steps:
  - for_each:
      data: train
      epochs: 100
      steps:
        - train
        - {evaluate: test, every: 3}
        - {stop: , every: 3, when: test.loss > best}
        - {assign: {best: test.loss}, every: 3}
  - expect: {test.loss >= best: true}
"""
    head = HEAD.replace("parameters:\n", "parameters:\n  best: {init: 100, requires_grad: false}\n")
    rows = rows_of(head + data() + SGD + steps, folder)
    losses = [row["test.loss"].item() for row in of(rows, "evaluate") if row["test.loss"] is not None]
    assert losses[-1] > losses[-2]
    assert losses[:-1] == sorted(losses[:-1], reverse=True)


def test_reading_a_result_before_evaluate_says_so(folder: Path) -> None:
    steps = "steps: [{train: , when: test.loss > 0}, evaluate: test]\n"
    with pytest.raises(runner.RunError, match=r"`test\.loss` does not exist before `evaluate: test`"):
        rows_of(HEAD + data() + SGD + steps, folder)


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


HOLDS = "sample 9 of `y` in `train` holds it"

LABELS = {
    "cross_entropy(x @ w, y)": ("label 4", HOLDS, "0 to 3"),
    "nll_loss(log_softmax(x @ w, 1), y)": ("label 4", HOLDS, "0 to 3"),
    "multi_margin_loss(x @ w, y)": ("label 4", HOLDS, "0 to 3"),
    "(one_hot(y, 4) * (x @ w)).sum()": ("label 4", HOLDS, "0 to 3"),
    "gather(x @ w, 1, y[:, None]).sum()": ("index 4", HOLDS, "0 to 3"),
    "(x @ w).gather(1, index=y[:, None]).sum()": ("index 4", HOLDS, "0 to 3"),
    "zeros(5, 4).scatter(1, y[:, None], (x @ w)[:, :1]).sum()": (
        "index 4",
        HOLDS,
        "0 to 3",
    ),
    "embedding(y, w.T).sum()": ("index 4", HOLDS, "0 to 3"),
    "index_select(w, 1, y).sum()": ("index 4", HOLDS, "0 to 3"),
    "take(w[0], y).sum()": ("index 4", HOLDS, "-4 to 3"),
    "w.T[y].sum()": ("index 4", HOLDS, "-4 to 3"),
    "w[..., y].sum()": ("index 4", HOLDS, "-4 to 3"),
    "w[None, 1:, y].sum()": ("index 4", HOLDS, "-4 to 3"),
    "w.T[y * y].sum()": ("index 16", "it is made from sample 9 of `train`", "-4 to 3"),
    "cross_entropy(x @ w, 3 - y)": ("label -1", "it is made from sample 9 of `train`", "0 to 3"),
}
"""What an expression counts with, and what is told of the label 4 that sample 9 has; the others are 0 or 1."""


def _faulty(folder: Path, labels: Tensor = Y % 2) -> None:
    labels = labels.clone()
    labels[9] = 4
    numpy.savez(folder / "all.npz", x=X.numpy(), y=labels.numpy())


@pytest.mark.parametrize("expression", LABELS)
def test_a_label_out_of_bounds_is_told_with_its_sample(expression: str, folder: Path) -> None:
    _faulty(folder)
    columns = "x: x, y: y" if "x @" in expression else "y: y"
    text = f"""
parameters: {{w: {{shape: [3, 4], init: 1}}}}
expression: f = ({expression}).to(float32) + 0 * w.sum()
data: {{train: {{file: all.npz, columns: {{{columns}}}, batch_size: 5, shuffle: true}}}}
optimizer: {{sgd: {{lr: 0}}}}
steps: {{epochs: 1}}
"""
    label, where, bounds = LABELS[expression]
    batch = order(0, "train", 1, 12).tolist().index(9) // 5 + 1
    with pytest.raises(runner.RunError, match="out of bounds") as caught:
        rows_of(text, folder)
    (problem,) = caught.value.problems
    assert problem.message == f"the {label} is out of bounds: {where} (at for_each[{batch}].train)"
    assert problem.hint == f"here it is {bounds}: make room for more, or mend the data"
    assert problem.line == 3


def test_a_label_out_of_bounds_is_told_by_evaluate_too(folder: Path) -> None:
    _faulty(folder)
    with pytest.raises(runner.RunError, match="the label 4 is out of bounds: sample 9 of `y` in `train` holds it"):
        rows_of(HEAD + data() + SGD + "steps: [evaluate: train]\n", folder)


def test_a_label_that_is_ignored_is_in_bounds(folder: Path) -> None:
    labels = Y % 2
    labels[0] = -100
    _faulty(folder, labels)
    text = HEAD + data("batch_size: 12") + SGD
    with pytest.raises(runner.RunError, match="the label 4 is out of bounds: sample 9 of `y` in `train` holds it"):
        rows_of(text, folder)


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
