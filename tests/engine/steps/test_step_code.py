"""What a step costs is counted, not timed: the torch functions that it calls, and the tensors that it copies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

import runner
from runner.engine import execute, initial_state
from runner.engine.session import open_session
from runner.engine.steps import steps
from runner.optim.updates import PIECE
from runner.plan.program.instructions import Action
from tests.engine.running import compiled, numbers, same
from tests.tables import over

LINEAR = """
parameters: {x1: {shape: [1], init: 100}, x2: {shape: [1], init: 200}, x3: {shape: [1], init: 300}}
constants: {constant: {shape: [1], init: 30}}
expression: f = 10 * x1 + 20 * x2 + constant * x3
on_nonfinite: ignore
optimizer: {%s}
steps: %s
"""
COPIES = {"clone", "copy_", "item", "tolist", "cpu", "to", "stack", "contiguous"}
OPTIMIZERS = {"sgd": "sgd: {lr: 0.01, momentum: 0.9}", "adam": "adam: {}", "adamw": "adamw: {}"}


class _Counting(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls[getattr(func, "__name__", str(func))] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[Counter[str]]:
    with _Counting() as mode:
        yield mode.calls


def calls_of_a_step(text: str) -> Counter[str]:
    """The torch functions that the third row's step calls; the first ones make state and constants."""
    rows = execute(compiled(text), shared=True)
    for _ in range(3):
        next(rows)
    with counted() as calls:
        next(rows)
    return calls


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_a_train_step_copies_nothing_and_waits_for_nothing(optimizer: str) -> None:
    calls = calls_of_a_step(LINEAR % (OPTIMIZERS[optimizer], 10))
    assert not COPIES & calls.keys()
    assert calls["mul"] + calls["__rmul__"] == 3 + (optimizer == "adamw")  # whose decay is one more
    assert calls["add"] + calls["__add__"] == 2


@pytest.mark.parametrize(("optimizer", "reads"), [("sgd: {lr: 0.01}", 4), ("rprop: {}", 7)])
def test_the_watch_reads_each_of_a_few_numbers_once_and_copies_nothing(optimizer: str, reads: int) -> None:
    unwatched = calls_of_a_step(LINEAR % (optimizer, 10))
    calls = calls_of_a_step((LINEAR % (optimizer, 10)).replace("ignore", "stop"))
    assert calls["item"] - unwatched["item"] == reads  # the objective and three weights, with rprop three gradients
    assert COPIES & calls.keys() == {"item", *(COPIES & unwatched.keys())}


def test_an_update_is_one_call_for_all_parameters() -> None:
    assert calls_of_a_step(LINEAR % ("sgd: {lr: 0.01}", 10))["_foreach_add"] == 1


def test_steps_written_out_copy_nothing_either() -> None:
    program = "[repeat: {times: 9, steps: [zero_grad, backward, step]}]"
    rows = execute(compiled(LINEAR % ("sgd: {lr: 0.01}", program)), shared=True)
    for _ in range(4):
        next(rows)
    with counted() as calls:
        for _ in range(3):
            next(rows)
    assert not COPIES & calls.keys()


PROGRAMS = {
    "accumulating": "[repeat: {times: 4, steps: [backward, {step: , every: 2}]}]",
    "clipping": "[repeat: {times: 3, steps: [zero_grad, backward, clip_grad_norm: 0.1, clip_grad_value: 0.05, step]}]",
    "zeroing in place": "[repeat: {times: 3, steps: [{zero_grad: {set_to_none: false}}, backward, step]}]",
    "assigning": "[backward, {assign: {x1: x1 - x1.grad, x2.grad: 2 * x2.grad}}, backward, step, {assign: {x3: 7}}]",
    "training": "[repeat: {times: 3, steps: [train, backward]}]",
}


@over("optimizer", ["sgd: {lr: 0.01}", "adam: {}", "rmsprop: {}", "rule: {update: param = param - grad}"])
@over("program", sorted(PROGRAMS))
def test_what_a_row_holds_is_never_written_again(program: str, optimizer: str) -> None:
    rows, copies = [], []
    for row in execute(compiled(LINEAR % (optimizer, PROGRAMS[program])), shared=True):
        rows.append(row)
        copies.append({name: None if value is None else value.clone() for name, value in numbers(row).items()})
    for row, copy in zip(rows, copies, strict=True):
        assert all(same(value, copy[name]) for name, value in numbers(row).items()), row


def test_foreach_and_fused_updates_leave_the_gradients_that_rows_hold() -> None:
    text = LINEAR % ("sgd: {lr: 0.01, momentum: 0.9, nesterov: true, foreach: true}", "[backward, step, step]")
    rows = list(execute(compiled(text), shared=True))
    assert same(rows[1]["x1.grad"], torch.tensor([10.0]))


def test_an_update_of_many_large_parameters_is_left_to_torch() -> None:
    text = """
parameters: {a: {shape: [512, 300], init: ones}, b: {shape: [512, 300], init: ones}}
expression: (a * b).sum()
optimizer: {sgd: {lr: 0.01}}
steps: 4
log: {tensors: none}
"""
    assert calls_of_a_step(text)["_foreach_add"] == 0


def test_rows_of_the_python_interface_are_copies() -> None:
    plan = compiled(LINEAR % ("sgd: {lr: 0.01}", 3))
    state = initial_state(plan)
    for row in runner.execute(plan, state):
        weight = row["x1"]
        assert weight is not None
        assert weight.data_ptr() != state.parameters["x1"].data_ptr()


UNLOGGED = """
parameters: {x: {shape: [3], init: ones}, y: {shape: [2, 2], init: ones}}
expression: f = (x ** 2).sum() + (y ** 3).sum()
optimizer: {adam: {}}
steps: [{repeat: {times: 4, steps: [train]}}]
log: {include: [f]}
"""


def test_a_step_looks_once_at_weights_that_no_row_holds() -> None:
    calls = calls_of_a_step(UNLOGGED)
    unwatched = calls_of_a_step(UNLOGGED + "on_nonfinite: ignore")
    assert calls["item"] - unwatched["item"] == 2  # the objective, and both weights as one tensor
    assert calls["sum"] - unwatched["sum"] == 1
    assert calls["_foreach_norm"] == 0


LARGE = """
parameters: {x: {shape: [300, 1000], init: ones}, y: {shape: [4], init: ones}, z: {shape: [5], init: ones}}
expression: f = (x ** 2).sum() + (y ** 3).sum() + z.sum()
optimizer: {adamw: {}}
steps: [{repeat: {times: 4, steps: [train]}}]
log: {include: [f]}
"""


def test_large_weights_are_looked_at_while_the_cache_has_them() -> None:
    calls = calls_of_a_step(LARGE)
    unwatched = calls_of_a_step(LARGE + "on_nonfinite: ignore")
    pieces = math.ceil(300_000 / (PIECE * torch.get_num_threads()))
    assert calls["sum"] - unwatched["sum"] == pieces + 1  # of `x`, and `y` and `z` as one tensor
    assert calls["_foreach_norm"] == 1  # the gradients, before anything is written
    assert unwatched["_foreach_norm"] == 0


def test_weights_that_no_row_holds_stay_where_they_are() -> None:
    plan = compiled(UNLOGGED)
    state = initial_state(plan)
    places = []
    for _ in execute(plan, state, shared=True):
        places.append([parameter.data_ptr() for parameter in state.parameters.values()])
    assert places[1] == places[2] == places[3] == places[4]  # the first step joins them


def test_what_weights_were_is_let_go_of_with_the_step() -> None:
    plan = compiled(UNLOGGED)
    session = open_session(plan, initial_state(plan))
    action = next(instruction for instruction in plan.program if isinstance(instruction, Action))
    step = steps.bind(session, action.argument, action.loops)
    stepper = session.binding.stepper("x")
    assert stepper.remembers
    for _ in range(3):
        step()
        with pytest.raises(KeyError, match="Parameter"):
            stepper.before("x")


VIEWS = """
parameters: {x: {shape: [2], init: [1.0, 2.0]}, k: 2.0, average: {init: 0, requires_grad: false}}
expression: |
  y = x[0]
  loss = y ** 2 + (x ** 2).sum() + k ** 2
metrics: {first: "x[1]"}
optimizer: {%s}
steps: [{repeat: {times: 3, steps: [train, assign: {average: average + y}]}}]
log: {include: [%s]}
"""


@pytest.mark.parametrize("optimizer", ["adam: {lr: 0.1}", "adagrad: {lr: 0.1}", "lbfgs: {lr: 0.1, max_iter: 2}"])
def test_a_value_that_is_part_of_a_weight_is_that_of_before_the_update(optimizer: str) -> None:
    ends = []
    for logged in ("y, first", "y, first, x, k"):
        plan = compiled(VIEWS % (optimizer, logged))
        state = initial_state(plan)
        rows = [numbers(row) for row in execute(plan, state)]
        trained = [(row["y"], row["first"]) for row in rows if row["y"] is not None]
        ends.append((trained, state.parameters["average"].item()))
        assert [value.item() for value in trained[0]] == [1.0, 2.0]
    assert ends[0] == ends[1]


def test_a_weight_given_as_gradient_is_not_the_gradient_itself() -> None:
    text = """
parameters: {a: {shape: [6], init: ones}, b: {shape: [2, 3], init: ones}}
expression: |
  y = a.reshape(2, 3)
  z = (b ** 2).sum()
optimizer: {adam: {lr: 0.1}}
steps: [{repeat: {times: 3, steps: [zero_grad, {backward: {objective: y, gradient: b}}, {backward: z}, step]}}]
log: {include: [a.grad]}
"""
    *_, last = execute(compiled(text))
    *_, logged = execute(compiled(text.replace("[a.grad]", "[a.grad, a, b]")))
    assert same(last["a.grad"], logged["a.grad"])
