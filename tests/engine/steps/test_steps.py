# ruff: noqa: E501 — configs in one line
"""Each step kind does what the same lines of torch do, bit for bit, and its row holds it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import runner
from tests.engine.running import Numbers, assert_rows, compiled, copied, numbers, rows_of, same

TWO = """\
parameters: {a: [1.5, -2.0], b: [0.25, 3.0]}
constants: {c: [0.1, 0.7]}
expression: |
  h = a * b + c
  loss = (h ** 2).sum()
"""
"""Two parameters, a value on the way, and an objective."""


class Hand:
    """`TWO` by hand."""

    def __init__(self) -> None:
        self.a = Parameter(torch.tensor([1.5, -2.0]))
        self.b = Parameter(torch.tensor([0.25, 3.0]))
        self.c = torch.tensor([0.1, 0.7])
        self.values: dict[str, Tensor] = {}

    def loss(self) -> Tensor:
        h = self.a * self.b + self.c
        loss = (h**2).sum()
        self.values = {"h": h, "loss": loss}
        return loss

    def row(self, step: str, *, values: bool = False, **others: Tensor) -> tuple[str, Numbers]:
        shown: dict[str, Tensor | None] = {"h": None, "loss": None}
        shown |= {name: copied(value) for name, value in (self.values if values else {}).items()}
        for name, weight in (("a", self.a), ("b", self.b)):
            shown[name] = copied(weight)
            shown[f"{name}.grad"] = copied(weight.grad)
        return step, {**shown, **others}


# forward, backward, zero_grad


def test_forward_computes_the_objective_and_no_gradient() -> None:
    hand = Hand()
    hand.loss()
    assert_rows(rows_of(TWO + "steps: [forward]"), [hand.row("forward", values=True)])


def test_row_0_holds_the_initial_weights_and_nothing_else() -> None:
    (start, *_) = rows_of(TWO + "steps: [forward]")
    assert (start.number, start.step, start.path, start.iteration) == (0, "start", "start", 1)
    assert all(same(numbers(start)[name], value) for name, value in Hand().row("start")[1].items())


def test_steps_default_to_one_backward() -> None:
    hand = Hand()
    hand.loss().backward()
    assert_rows(rows_of(TWO), [hand.row("backward", values=True)])


def test_gradients_accumulate_from_backward_to_backward() -> None:
    hand, expected = Hand(), []
    for _ in range(3):
        hand.loss().backward()
        expected.append(hand.row("backward", values=True))
    assert_rows(rows_of(TWO + "steps: [backward, backward, backward]"), expected)


def test_accumulating_writes_no_row_that_was_given_before() -> None:
    rows = rows_of("{parameters: {x: 3.0}, expression: f = x, steps: [backward, backward, backward]}")
    assert [row["x.grad"].item() for row in rows[1:]] == [1, 2, 3]


def test_backward_of_another_named_value_computes_what_it_needs_alone() -> None:
    text = """\
parameters: {x: 2.0, y: 3.0}
expression: |
  a = x * 2
  b = y ** 2
  c = a + b
steps: [backward: b, forward: a]
"""
    (_, row, _) = rows_of(text)
    assert (row["b"].item(), row["y.grad"].item(), row["x.grad"]) == (9, 6, None)
    assert row["a"] is None
    assert "c" not in row


def test_backward_with_parameters_is_the_inputs_of_torch() -> None:
    hand = Hand()
    hand.loss().backward(inputs=[hand.b])
    row = hand.row("backward", values=True)
    assert row[1]["a.grad"] is None
    assert_rows(rows_of(TWO + "steps: [{backward: {parameters: [b]}}]"), [row])


def test_backward_takes_globs_of_parameters() -> None:
    text = """\
parameters: {w_1: 1.0, w_2: 2.0, v: 3.0}
expression: f = w_1 * w_2 * v
steps: [{backward: {parameters: 'w_*'}}]
"""
    row = rows_of(text)[1]
    assert [None if row[f"{name}.grad"] is None else row[f"{name}.grad"].item() for name in ("w_1", "w_2", "v")] == [
        6,
        3,
        None,
    ]


@pytest.mark.parametrize(
    ("gradient", "by_hand"),
    [
        ("tensor([1.0, -2.0])", torch.tensor([1.0, -2.0])),
        ("c * 3", torch.tensor([0.1, 0.7]) * 3),
        ("1", torch.ones(2)),
        ("a", torch.tensor([1.5, -2.0])),
    ],
)
def test_backward_of_many_elements_takes_their_gradient(gradient: str, by_hand: Tensor) -> None:
    hand = Hand()
    hand.loss()
    hand.values["h"].backward(by_hand)
    step, shown = hand.row("backward")
    assert_rows(
        rows_of(TWO + f"steps: [{{backward: {{objective: h, gradient: {gradient!r}}}}}]"),
        [(step, {name: shown[name] for name in ("a.grad", "b.grad")})],
    )


@pytest.mark.parametrize("before", ["", "forward, ", "forward, {assign: {x: 2 * x}}, "])
def test_a_gradient_may_read_the_values_that_its_own_step_computes(before: str) -> None:
    text = "{parameters: {x: [1.0, 2.0]}, expression: f = (x ** 2).sum(), steps: [%s{backward: {gradient: f}}]}"
    x = torch.tensor([1.0, 2.0], requires_grad=True) if "assign" not in before else torch.tensor([2.0, 4.0])
    f = (x.requires_grad_() ** 2).sum()
    f.backward(f.detach())
    assert same(rows_of(text % before)[-1]["x.grad"], x.grad)


def test_zero_grad_removes_gradients() -> None:
    hand = Hand()
    hand.loss().backward()
    expected = [hand.row("backward", values=True)]
    hand.a.grad = hand.b.grad = None
    expected.append(hand.row("zero_grad"))
    assert_rows(rows_of(TWO + "steps: [backward, zero_grad]"), expected)


def test_zero_grad_with_set_to_none_false_fills_with_zeros_what_exists() -> None:
    hand = Hand()
    expected = [hand.row("zero_grad")]
    hand.loss().backward()
    expected.append(hand.row("backward", values=True))
    torch.optim.SGD([hand.a, hand.b], lr=1).zero_grad(set_to_none=False)
    expected.append(hand.row("zero_grad"))
    hand.loss().backward()
    expected.append(hand.row("backward", values=True))
    zero = "zero_grad: {set_to_none: false}"
    assert_rows(rows_of(TWO + f"steps: [{zero}, backward, {zero}, backward]"), expected)
    assert same(expected[2][1]["a.grad"], torch.zeros(2))


def test_zero_grad_of_an_optimizer_touches_what_it_holds_alone() -> None:
    hand = Hand()
    hand.loss().backward()
    hand.b.grad = None
    optimizers = "optimizers: {one: {sgd: {lr: 1}, parameters: [a]}, two: {sgd: {lr: 1}, parameters: [b]}}\n"
    rows = rows_of(TWO + optimizers + "steps: [backward, zero_grad: two, step: one]")
    assert all(same(numbers(rows[2])[name], value) for name, value in hand.row("zero_grad")[1].items())


# step


def test_step_is_the_optimizers_step_and_leaves_gradients() -> None:
    hand = Hand()
    optimizer = torch.optim.Adam([hand.a, hand.b], lr=0.1)
    expected = []
    for _ in range(3):
        hand.loss().backward()
        expected.append(hand.row("backward", values=True))
        optimizer.step()
        expected.append(hand.row("step"))
    assert_rows(
        rows_of(TWO + "optimizer: {adam: {lr: 0.1}}\nsteps: [{repeat: {times: 3, steps: [backward, step]}}]"), expected
    )


def test_step_without_any_gradient_changes_nothing() -> None:
    hand = Hand()
    rows = rows_of(TWO + "optimizer: {adam: {lr: 0.1}}\nsteps: [step, backward]")
    assert all(same(numbers(rows[1])[name], value) for name, value in hand.row("step")[1].items())


SEVERAL = """\
optimizers:
  one: {sgd: {lr: 0.1, momentum: 0.9}, parameters: [a]}
  two: {adam: {lr: 0.2}, parameters: [b]}
"""


def optimizers_of(hand: Hand) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return torch.optim.SGD([hand.a], lr=0.1, momentum=0.9), torch.optim.Adam([hand.b], lr=0.2)


def test_step_names_one_optimizer_or_several() -> None:
    hand = Hand()
    one, two = optimizers_of(hand)
    hand.loss().backward()
    expected = [hand.row("backward", values=True)]
    one.step()
    expected.append(hand.row("step"))
    two.step()
    expected.append(hand.row("step"))
    one.step()
    two.step()
    expected.append(hand.row("step"))
    one.step()
    two.step()
    expected.append(hand.row("step"))
    assert_rows(rows_of(TWO + SEVERAL + "steps: [backward, step: one, step: two, step: [one, two], step]"), expected)


def test_a_gradient_that_a_foreach_step_rewrites_is_shown_as_it_is_after_it() -> None:
    x = Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([x], lr=0.1, momentum=0.9, nesterov=True, foreach=True)
    expected = []
    for _ in range(2):
        (x**3).sum().backward()
        expected.append(("backward", {"x": copied(x), "x.grad": copied(x.grad)}))
        optimizer.step()
        expected.append(("step", {"x": copied(x), "x.grad": copied(x.grad)}))
    text = """\
parameters: {x: [1.0, 2.0]}
expression: f = (x ** 3).sum()
optimizer: {sgd: {lr: 0.1, momentum: 0.9, nesterov: true, foreach: true}}
steps: [{repeat: {times: 2, steps: [backward, step]}}]
"""
    assert_rows(rows_of(text), expected)


# train


def trained(hand: Hand, *optimizers: torch.optim.Optimizer) -> tuple[str, Numbers]:
    hand.a.grad = hand.b.grad = None
    hand.loss().backward()
    for optimizer in optimizers:
        optimizer.step()
    return hand.row("train", values=True)


def test_train_is_zero_grad_backward_and_step_in_one_row() -> None:
    hand = Hand()
    optimizer = torch.optim.SGD([hand.a, hand.b], lr=0.01, momentum=0.9)
    expected = [trained(hand, optimizer) for _ in range(4)]
    assert_rows(rows_of(TWO + "optimizer: {sgd: {lr: 0.01, momentum: 0.9}}\nsteps: 4"), expected)


def test_train_equals_its_parts() -> None:
    optimizer = "optimizer: {rmsprop: {lr: 0.01}}\n"
    clip = "clip_grad_norm: 0.5, clip_grad_value: 0.2"
    whole = rows_of(TWO + optimizer + f"steps: [{{repeat: {{times: 3, steps: [train: {{{clip}}}]}}}}]")
    parts = rows_of(
        TWO
        + optimizer
        + "steps: [{repeat: {times: 3, steps: [zero_grad, backward, clip_grad_norm: 0.5, clip_grad_value: 0.2, step]}}]"
    )
    for one, other in zip(whole[1:], parts[5::5], strict=True):
        assert all(same(one[name], other[name]) for name in ("a", "b", "a.grad", "b.grad"))


def test_train_without_a_name_steps_every_optimizer_from_one_backward() -> None:
    hand = Hand()
    expected = [trained(hand, *optimizers_of(hand))]
    one, two = optimizers_of(hand := Hand())
    expected = [trained(hand, one, two) for _ in range(3)]
    assert_rows(rows_of(TWO + SEVERAL + "steps: 3"), expected)


def test_train_with_a_name_zeroes_differentiates_and_steps_that_ones_parameters_alone() -> None:
    hand = Hand()
    one, two = optimizers_of(hand)
    expected = []
    hand.loss().backward()
    expected.append(hand.row("backward", values=True))
    for optimizer, weight in ((one, hand.a), (two, hand.b), (one, hand.a)):
        weight.grad = None
        hand.loss().backward(inputs=[weight])
        optimizer.step()
        expected.append(hand.row("train", values=True))
    steps = "steps: [backward, train: {optimizer: one}, train: {optimizer: two}, train: {optimizer: [one]}]"
    assert_rows(rows_of(TWO + SEVERAL + steps), expected)


def test_train_takes_another_objective() -> None:
    x = Parameter(torch.tensor(2.0))
    optimizer = torch.optim.SGD([x], lr=0.1)
    expected = []
    for power in (2, 3):
        x.grad = None
        (x**power).backward()
        optimizer.step()
        expected.append(("train", {"x": copied(x), "x.grad": copied(x.grad)}))
    text = """\
parameters: {x: 2.0}
expression: |
  a = x ** 2
  b = x ** 3
optimizer: {sgd: {lr: 0.1}}
steps: [train: {objective: a}, train]
"""
    assert_rows(rows_of(text), expected)


def seed_of(number: int) -> int:
    from runner.plan.streams import stream_seed

    return stream_seed(5, "expression", "", number)


NOISY = """\
seed: 5
parameters: {w: [1.0, 2.0, 3.0, 4.0]}
expression: |
  h = dropout(w * 2, 0.5)
  loss = (h ** 2).mean()
optimizer: {sgd: {lr: 0.1}}
"""


@pytest.mark.parametrize("times", [2, 3, 5])
def test_accumulate_averages_the_gradients_of_micro_batches_and_the_objective(times: int) -> None:
    w = Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    optimizer = torch.optim.SGD([w], lr=0.1)
    draws, expected = 0, []
    for _ in range(3):
        optimizer.zero_grad()
        losses = []
        for _ in range(times):
            draws += 1
            torch.manual_seed(seed_of(draws))
            h = torch.nn.functional.dropout(w * 2, 0.5)
            loss = (h**2).mean()
            (loss / times).backward()
            losses.append(loss.detach())
        optimizer.step()
        mean = sum(losses[1:], losses[0]) / times
        expected.append(("train", {"h": copied(h), "loss": mean, "w": copied(w), "w.grad": copied(w.grad)}))
    steps = f"steps: [{{repeat: {{times: 3, steps: [train: {{accumulate: {times}}}]}}}}]"
    assert_rows(rows_of(NOISY + steps), expected)


def test_what_later_steps_read_of_an_accumulated_objective_is_its_mean() -> None:
    rows = rows_of(NOISY + "steps: [train: {accumulate: 4}, assign: {w: 'w * 0 + loss'}]")
    assert same(rows[2]["w"], rows[1]["loss"].expand(4).clone())


def test_accumulate_of_one_is_a_plain_train() -> None:
    plain, one = (rows_of(NOISY + f"steps: [train: {argument}]") for argument in ("{}", "{accumulate: 1}"))
    assert all(same(plain[1][name], one[1][name]) for name in ("loss", "w", "w.grad"))


# clipping


@pytest.mark.parametrize(
    ("step", "max_norm", "norm_type"),
    [
        ("clip_grad_norm: 0.5", 0.5, 2.0),
        ("clip_grad_norm: 1000", 1000.0, 2.0),
        ("clip_grad_norm: {max_norm: 0.5, norm_type: 1}", 0.5, 1.0),
        ("clip_grad_norm: {max_norm: 0.5, norm_type: inf}", 0.5, float("inf")),
    ],
)
def test_clip_grad_norm_is_torchs_and_logs_the_norm(step: str, max_norm: float, norm_type: float) -> None:
    hand = Hand()
    hand.loss().backward()
    expected = [hand.row("backward", values=True, total_norm=None)]
    norm = torch.nn.utils.clip_grad_norm_([hand.a, hand.b], max_norm, norm_type)
    expected.append(hand.row("clip_grad_norm", total_norm=norm))
    assert_rows(rows_of(TWO + f"steps: [backward, {step}]"), expected)


def test_clip_grad_norm_may_name_parameters() -> None:
    hand = Hand()
    hand.loss().backward()
    norm = torch.nn.utils.clip_grad_norm_([hand.b], 0.5)
    row = hand.row("clip_grad_norm", total_norm=norm)
    rows = rows_of(TWO + "steps: [backward, clip_grad_norm: {max_norm: 0.5, parameters: [b]}]")
    assert_rows([rows[0], rows[2]], [row])


def test_clip_grad_value_is_torchs() -> None:
    hand = Hand()
    hand.loss().backward()
    torch.nn.utils.clip_grad_value_([hand.a, hand.b], 0.5)
    rows = rows_of(TWO + "steps: [backward, clip_grad_value: 0.5]")
    assert "total_norm" not in rows[0]
    assert_rows([rows[0], rows[2]], [hand.row("clip_grad_value")])


def test_train_clips_before_it_steps_and_shows_clipped_gradients() -> None:
    hand = Hand()
    optimizer = torch.optim.SGD([hand.a, hand.b], lr=0.1)
    expected = []
    for _ in range(2):
        optimizer.zero_grad()
        hand.loss().backward()
        norm = torch.nn.utils.clip_grad_norm_([hand.a, hand.b], 1.0)
        torch.nn.utils.clip_grad_value_([hand.a, hand.b], 0.25)
        optimizer.step()
        expected.append(hand.row("train", values=True, total_norm=norm))
    steps = "steps: [{repeat: {times: 2, steps: [train: {clip_grad_norm: 1.0, clip_grad_value: 0.25}]}}]"
    assert_rows(rows_of(TWO + "optimizer: {sgd: {lr: 0.1}}\n" + steps), expected)


def test_the_norm_of_mixed_dtypes_has_the_wider_one() -> None:
    text = """\
parameters: {a: 3.0, b: {init: 4.0, dtype: float64}}
expression: f = a * 3 + b * 4
steps: [backward, clip_grad_norm: 1.0, zero_grad, clip_grad_norm: {max_norm: 1.0, parameters: [a]}]
"""
    rows = rows_of(text)
    assert {column.dtype for column in rows[0].columns if column.name == "total_norm"} == {torch.float64}
    assert rows[2]["total_norm"].dtype == rows[4]["total_norm"].dtype == torch.float64
    assert rows[2]["total_norm"].item() == pytest.approx(5.0)


# assign


def test_assign_reads_all_right_hand_sides_before_it_writes_any() -> None:
    rows = rows_of(TWO + "steps: [backward, assign: {a: b, b: a}]")
    assert same(rows[2]["a"], torch.tensor([0.25, 3.0]))
    assert same(rows[2]["b"], torch.tensor([1.5, -2.0]))


def test_assign_of_a_view_is_a_copy() -> None:
    text = "{parameters: {x: [1.0, 2.0]}, expression: f = x.sum(), steps: [backward, assign: {x: x.flip(0), x.grad: x}, assign: {x: x * 0}]}"
    rows = rows_of(text)
    assert rows[3]["x.grad"].tolist() == [1, 2]


def test_assign_is_the_notebooks_own_update() -> None:
    hand = Hand()
    hand.loss().backward()
    expected = [hand.row("backward", values=True)]
    with torch.no_grad():
        hand.a.copy_(hand.a - 0.1 * hand.a.grad)
    expected.append(hand.row("assign"))
    hand.loss().backward()
    expected.append(hand.row("backward", values=True))
    assert_rows(rows_of(TWO + "steps: [backward, assign: {a: a - 0.1 * a.grad}, backward]"), expected)


def test_assign_replaces_a_gradient() -> None:
    hand = Hand()
    hand.loss().backward()
    expected = [hand.row("backward", values=True)]
    hand.a.grad = hand.a.grad / 3
    hand.b.grad = torch.full((2,), 7.0)
    expected.append(hand.row("assign"))
    hand.loss().backward()
    expected.append(hand.row("backward", values=True))
    assert_rows(rows_of(TWO + "steps: [backward, assign: {a.grad: a.grad / 3, b.grad: 7}, backward]"), expected)


def test_assign_of_a_gradient_shows_in_no_earlier_row() -> None:
    rows = rows_of(TWO + "steps: [backward, assign: {a.grad: 0}, backward]")
    assert rows[1]["a.grad"].abs().sum() > 0


def test_assign_leaves_optimizer_state_alone() -> None:
    x = Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([x], lr=0.1, momentum=0.9)
    shown = []
    for _ in range(2):
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()
        with torch.no_grad():
            x.copy_(x / 2)
        shown.append(copied(x))
    text = """\
parameters: {x: [1.0, 2.0]}
expression: f = (x ** 2).sum()
optimizer: {sgd: {lr: 0.1, momentum: 0.9}}
steps: [{repeat: {times: 2, steps: [train, assign: {x: x / 2}]}}]
log: {state: true}
"""
    rows = rows_of(text)
    assert all(same(row["x"], value) for row, value in zip(rows[2::2], shown, strict=True))
    assert same(rows[1]["x.momentum_buffer"], rows[2]["x.momentum_buffer"])


def test_assign_writes_frozen_parameters_for_running_statistics() -> None:
    text = """\
parameters:
  w: [1.0, 2.0]
  average: {init: {expression: w}, requires_grad: false}
  seen: {init: 0, dtype: int64, requires_grad: false}
expression: loss = ((w - average.mean()) ** 2).sum()
optimizer: {sgd: {lr: 0.1}}
steps: [{repeat: {times: 3, steps: [train, assign: {average: 0.9 * average + 0.1 * w, seen: seen + 1}]}}]
"""
    w, average = Parameter(torch.tensor([1.0, 2.0])), torch.tensor([1.0, 2.0])
    optimizer = torch.optim.SGD([w], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        ((w - average.mean()) ** 2).sum().backward()
        optimizer.step()
        average = 0.9 * average + 0.1 * w.detach()
    last = rows_of(text)[-1]
    assert same(last["w"], w.detach())
    assert same(last["average"], average)
    assert same(last["seen"], torch.tensor(3))
    assert "average.grad" not in last


def test_assign_broadcasts() -> None:
    rows = rows_of(TWO + "steps: [backward, assign: {a: 5, b: 'tensor([0.1])'}]")
    assert same(rows[2]["a"], torch.full((2,), 5.0))
    assert same(rows[2]["b"], torch.full((2,), 0.1))


def test_assign_reads_named_values_as_they_were_last_computed() -> None:
    rows = rows_of(TWO + "steps: [forward, assign: {a: a * 0}, assign: {b: h}]")
    assert same(rows[3]["b"], rows[1]["h"])


def test_a_named_value_that_is_a_view_stays_as_it_was_computed() -> None:
    text = """\
parameters: {x: [[1.0, 2.0]], y: [0.0, 0.0]}
expression: |
  v = x.reshape(2)
  f = (v * y).sum()
steps: [forward, assign: {x: x * 0}, assign: {y: v}]
"""
    assert rows_of(text)[3]["y"].tolist() == [1, 2]


def test_assign_draws_random_numbers_from_the_runs_stream() -> None:
    rows = rows_of(
        "{seed: 5, parameters: {x: [1.0, 2.0]}, expression: f = x.sum(), steps: [backward, assign: {x: randn(2)}]}"
    )
    torch.manual_seed(seed_of(1))
    assert same(rows[2]["x"], torch.randn(2))


# what stands for the shape of a plan


def test_a_step_that_only_expects_or_stops_logs_no_row() -> None:
    rows = rows_of(TWO + "steps: [backward, expect: {a.grad: a.grad}, {repeat: {times: 2, steps: [stop]}}]")
    assert [row.step for row in rows] == ["start", "backward"]


def test_metrics_are_computed_with_the_objective() -> None:
    text = (
        TWO
        + "metrics: {worst: h.abs().max(), size: a.norm()}\noptimizer: {sgd: {lr: 0.1}}\nsteps: [train, step, forward]\n"
    )
    rows = rows_of(text)
    for number in (1, 3):
        assert same(rows[number]["worst"], rows[number]["h"].abs().max())
        assert same(rows[number]["size"], rows[number - 1]["a"].norm())
    assert rows[2]["worst"] is None


def test_a_metric_that_reads_what_a_step_does_not_compute_is_null_there() -> None:
    text = """\
parameters: {x: 2.0}
expression: |
  a = x ** 2
  b = x ** 3
  c = a + b
metrics: {twice: b * 2, weight: x * 1}
steps: [forward: a, forward: c]
"""
    _, first, second = rows_of(text)
    assert first["twice"] is None
    assert second["twice"].item() == 16
    assert first["weight"].item() == second["weight"].item() == 2


def test_metrics_change_no_gradient() -> None:
    plain, measured = (rows_of(TWO + metrics) for metrics in ("", "metrics: {m: (h ** 3).sum()}\n"))
    assert all(same(plain[1][name], measured[1][name]) for name in ("loss", "a.grad", "b.grad"))


def test_the_seed_of_the_expression_is_the_documented_stream() -> None:
    rows = rows_of(NOISY + "steps: [forward, forward]")
    for number in (1, 2):
        torch.manual_seed(seed_of(number))
        assert same(rows[number]["h"], torch.nn.functional.dropout(torch.tensor([1.0, 2.0, 3.0, 4.0]) * 2, 0.5))


def test_hyperparameters_are_expressions_of_the_count_of_steps() -> None:
    x = Parameter(torch.tensor(1.0))
    expected = []
    for t in range(1, 5):
        optimizer = torch.optim.SGD([x], lr=0.1 * 0.5 ** ((t - 1) // 2))
        optimizer.zero_grad()
        (x**2).backward()
        optimizer.step()
        expected.append(("train", {"x": copied(x)}))
    text = "parameters: {x: 1.0}\nexpression: f = x ** 2\nsteps: 4\n"
    assert_rows(rows_of(text + "optimizer: {sgd: {lr: 0.1 * 0.5 ** ((t - 1) // 2)}}"), expected)
    tabled = "constants: {lrs: [0.1, 0.1, 0.05, 0.05]}\noptimizer: {sgd: {lr: 'lrs[t - 1]'}}\n"
    close = rows_of(text + tabled)
    assert close[4]["x"].item() == pytest.approx(expected[3][1]["x"].item())


def test_groups_have_hyperparameters_of_their_own() -> None:
    w, bias = Parameter(torch.tensor([1.0, 2.0])), Parameter(torch.tensor([3.0]))
    optimizer = torch.optim.AdamW(
        [{"params": [w]}, {"params": [bias], "weight_decay": 0, "lr": 0.5}], lr=0.1, weight_decay=0.2
    )
    expected = []
    for _ in range(3):
        optimizer.zero_grad()
        ((w * bias) ** 2).sum().backward()
        optimizer.step()
        expected.append(("train", {"w": copied(w), "bias": copied(bias)}))
    text = """\
parameters: {w: [1.0, 2.0], bias: [3.0]}
expression: f = ((w * bias) ** 2).sum()
optimizer:
  adamw: {lr: 0.1, weight_decay: 0.2}
  groups: [{parameters: [b*], weight_decay: 0, lr: 0.5}]
steps: 3
"""
    assert_rows(rows_of(text), expected)


def test_optimizer_state_starts_from_tensors() -> None:
    x = Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([x], lr=0.1, momentum=0.9)
    optimizer.state[x]["momentum_buffer"] = torch.tensor([10.0, 20.0])
    expected = []
    for _ in range(2):
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()
        expected.append(("train", {"x": copied(x), "x.momentum_buffer": copied(optimizer.state[x]["momentum_buffer"])}))
    text = """\
parameters: {x: [1.0, 2.0]}
constants: {m0: [10.0, 20.0]}
expression: f = (x ** 2).sum()
optimizer: {sgd: {lr: 0.1, momentum: 0.9}, state: {x: {momentum_buffer: m0}}}
steps: 2
log: {state: true}
"""
    assert_rows(rows_of(text), expected)


# L-BFGS


ROSENBROCK = """\
parameters: {x: [-1.5, 2.0], other: 1.0}
expression: |
  f = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2 + other ** 2
optimizers:
  fit: {lbfgs: {max_iter: 5, line_search_fn: strong_wolfe}, parameters: [x]}
  rest: {sgd: {lr: 0.1}, parameters: [other]}
"""


def rosenbrock(x: Tensor, other: Tensor) -> Tensor:
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2 + other**2


def test_lbfgs_differentiates_its_own_parameters_and_its_row_holds_the_first_evaluation() -> None:
    x, other = Parameter(torch.tensor([-1.5, 2.0])), Parameter(torch.tensor(1.0))
    optimizer = torch.optim.LBFGS([x], max_iter=5, line_search_fn="strong_wolfe")
    expected: list[tuple[str, Numbers]] = []
    for _ in range(3):
        seen: list[tuple[Tensor | None, Tensor | None]] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            f = rosenbrock(x, other)
            f.backward(inputs=[x])
            seen.append((copied(f), copied(x.grad)))  # noqa: B023
            return f

        optimizer.step(closure)
        expected.append(
            (
                "train",
                {"f": seen[0][0], "x": copied(x), "x.grad": seen[0][1], "other": copied(other), "other.grad": None},
            )
        )
    steps = "steps: [{repeat: {times: 3, steps: [train: {optimizer: fit}]}}]\n"
    assert_rows(rows_of(ROSENBROCK + steps), expected)


def test_after_lbfgs_the_gradient_is_that_of_its_last_evaluation() -> None:
    x, other = Parameter(torch.tensor([-1.5, 2.0])), Parameter(torch.tensor(1.0))
    optimizer = torch.optim.LBFGS([x], max_iter=5, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        f = rosenbrock(x, other)
        f.backward(inputs=[x])
        return f

    optimizer.step(closure)
    rows = rows_of(ROSENBROCK + "steps: [train: {optimizer: fit}, assign: {other: x.grad.sum()}]")
    assert same(rows[2]["x.grad"], x.grad)
    assert same(rows[2]["other"], x.grad.sum())


def test_a_step_of_lbfgs_evaluates_the_objective_of_the_backward_before_it() -> None:
    text = """\
parameters: {x: [3.0, 4.0]}
expression: |
  a = (x ** 2).sum()
  b = (x ** 4).sum()
optimizer: {lbfgs: {max_iter: 3}}
steps: [backward: a, step]
"""
    x = Parameter(torch.tensor([3.0, 4.0]))
    optimizer = torch.optim.LBFGS([x], max_iter=3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        a = (x**2).sum()
        a.backward()
        return a

    optimizer.step(closure)
    rows = rows_of(text)
    assert same(rows[2]["x"], x.detach())
    assert same(rows[2]["a"], torch.tensor(25.0))


def test_lbfgs_draws_the_same_numbers_in_every_evaluation_of_a_step() -> None:
    text = NOISY.replace("{sgd: {lr: 0.1}}", "{lbfgs: {lr: 0.1, max_iter: 4}}") + "steps: 2"
    w = Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    optimizer = torch.optim.LBFGS([w], lr=0.1, max_iter=4)
    expected = []
    for step in (1, 2):

        def closure() -> Tensor:
            optimizer.zero_grad()
            torch.manual_seed(seed_of(step))  # noqa: B023
            loss = (torch.nn.functional.dropout(w * 2, 0.5) ** 2).mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        expected.append(("train", {"w": copied(w)}))
    assert_rows(rows_of(text), expected)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("{accumulate: 2}", "`lbfgs` re-evaluates within its step, and cannot accumulate"),
        ("{clip_grad_norm: 1.0}", "`lbfgs` re-evaluates within its step, and cannot clip"),
        ("{clip_grad_value: 1.0}", "`lbfgs` re-evaluates within its step, and cannot clip"),
    ],
)
def test_lbfgs_refuses_to_accumulate_and_to_clip(argument: str, message: str) -> None:
    text = f"{{parameters: {{x: 1.0}}, expression: f = x ** 2, optimizer: {{lbfgs: {{}}}}, steps: [train: {argument}]}}"
    with pytest.raises(runner.ConfigError, match=message):
        compiled(text)


# order


def test_the_parts_of_a_train_step_come_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.engine.steps import autograd, clipping
    from runner.optim import Stepper

    events: list[str] = []

    def recorded(target: object, name: str, event: str) -> None:
        original = getattr(target, name)

        def wrapper(*args: object, **kwargs: object) -> object:
            events.append(event)
            return original(*args, **kwargs)

        monkeypatch.setattr(target, name, wrapper)

    recorded(autograd.Differentiate, "__call__", "backward")
    recorded(clipping, "by_norm", "clip_grad_norm")
    recorded(clipping, "by_value", "clip_grad_value")
    recorded(Stepper, "step", "step")
    plan = compiled(TWO + SEVERAL + "steps: [train: {clip_grad_norm: 1.0, clip_grad_value: 0.5, accumulate: 2}]")
    events.clear()
    rows = runner.execute(plan)
    next(rows)
    assert events == []
    next(rows)
    assert events == ["backward", "backward", "clip_grad_norm", "clip_grad_value", "step", "step"]
