from __future__ import annotations

from pathlib import Path

import numpy

from runner.faults import Faults
from runner.plan.checks.engines.capturable import check_capturable, steps_within
from tests.engine.running import compiled
from tests.tables import over


def told(text: str, base: str | Path = ".") -> str:
    """What is said of a config of the CPU, whose program is that of any device."""
    plan = compiled(text, base)
    faults = Faults(plan.config.document)
    check_capturable(plan.program, plan.tensors, faults)
    return "\n\n".join(problem.render() for problem in faults.problems)


HEAD = """parameters: {x: {shape: [1], init: 100}}
"""


def test_the_parts_of_a_train_step_are_refused() -> None:
    text = HEAD + "expression: f = x ** 2\noptimizer: {sgd: {lr: 0.1}}\nsteps: [backward, step, zero_grad]\n"
    assert told(text) == (
        "<stdin>:4:9  steps.0\n"
        "    4 | steps: [backward, step, zero_grad]\n"
        "      |         ^^^^^^^^ `engine: cudagraph` records whole `train` steps, and `backward` is a part of one\n"
        "      = write `train`, or `engine: eager`\n"
        "\n"
        "<stdin>:4:19  steps.1\n"
        "    4 | steps: [backward, step, zero_grad]\n"
        "      |                   ^^^^ `engine: cudagraph` records whole `train` steps, and `step` is a part of one\n"
        "      = write `train`, or `engine: eager`\n"
        "\n"
        "<stdin>:4:25  steps.2\n"
        "    4 | steps: [backward, step, zero_grad]\n"
        "      |                         ^^^^^^^^^ `engine: cudagraph` records whole `train` steps, and `zero_grad`"
        " is a part of one\n"
        "      = write `train`, or `engine: eager`"
    )


def test_lbfgs_is_refused() -> None:
    assert told(HEAD + "expression: f = x ** 2\noptimizer: {lbfgs: {lr: 0.1}}\nsteps: [train]\n") == (
        "<stdin>:4:9  steps.0\n"
        "    4 | steps: [train]\n"
        "      |         ^^^^^ `engine: cudagraph` cannot record this step: `lbfgs` evaluates the objective again"
        " within it\n"
        "      = use another optimizer, or write `engine: eager`"
    )


def test_what_changes_from_step_to_step_is_refused() -> None:
    assert told(HEAD + "expression: f = x ** 2 / iteration\noptimizer: {sgd: {lr: 0.1}}\nsteps: [train]\n") == (
        "<stdin>:4:9  steps.0\n"
        "    4 | steps: [train]\n"
        "      |         ^^^^^ `engine: cudagraph` records this step once, and `iteration` changes from step to step\n"
        "      = write `engine: eager`"
    )


def test_random_numbers_of_micro_batches_are_refused(tmp_path: Path) -> None:
    numpy.save(tmp_path / "a.npy", numpy.ones((4, 1), dtype="float32"))
    text = (
        HEAD
        + "data: {t: {columns: {a: a.npy}, batch_size: 2}}\nexpression: f = (dropout(x * a, 0.5) ** 2).sum()\n"
        + "optimizer: {sgd: {lr: 0.1}}\nsteps: [{train: {accumulate: 2}}]\n"
    )
    assert told(text, tmp_path) == (
        "<stdin>:5:9  steps.0\n"
        "    5 | steps: [{train: {accumulate: 2}}]\n"
        "      |         ^^^^^^^^^^^^^^^^^^^^^^^^ `engine: cudagraph` draws random numbers once a step, and this step"
        " would in each micro-batch\n"
        "      = remove `accumulate`, or write `engine: eager`"
    )


def test_a_shape_that_depends_on_data_is_refused() -> None:
    assert told(HEAD + "expression: f = x[x > 0].sum()\noptimizer: {sgd: {lr: 0.1}}\nsteps: [train]\n") == (
        "<stdin>:2:17  expression\n"
        "    2 | expression: f = x[x > 0].sum()\n"
        "      |                 ^^^^^^^^ `engine: cudagraph` cannot record this: its shape depends on data\n"
        "      = write `engine: eager`"
    )


def test_numbers_that_are_sent_in_every_step_are_refused() -> None:
    text = HEAD + "expression: f = (x * tensor([1.0, 2.0])).sum()\noptimizer: {sgd: {lr: 0.1}}\nsteps: [train]\n"
    assert told(text) == (
        "<stdin>:2:22  expression\n"
        "    2 | expression: f = (x * tensor([1.0, 2.0])).sum()\n"
        "      |                      ^^^^^^^^^^^^^^^^^^ `engine: cudagraph` cannot record this: its numbers are copied"
        " to the device in every step\n"
        "      = declare it in `constants`, or write `engine: eager`"
    )


def test_what_is_recorded_is_not_refused() -> None:
    text = (
        HEAD
        + "expression: f = (x * randn(2)).sum() ** 2\noptimizer: {adam: {lr: 0.1 / t}}\n"
        + "steps: [{repeat: {times: 3, steps: [{train: {clip_grad_norm: 1.0}}, {assign: {x: x * 0.5}}]}}]\n"
    )
    assert told(text) == ""


@over(
    ("optimizer", "within"),
    [
        ("sgd: {lr: 0.1, momentum: 0.9}", True),
        ("sgd: {lr: 0.1 / t}", False),
        ("adam: {lr: 0.1}", False),
        ("rule: {update: param = param - 0.1 * grad}", True),
        ("rule: {update: param = param - 0.1 * grad / t}", False),
        ("rule: {update: param = param - 0.1 * grad * rand_like(grad)}", False),
    ],
)
def test_an_update_is_recorded_where_it_is_the_same_in_every_step(optimizer: str, within: bool) -> None:
    plan = compiled(f"{HEAD}expression: f = x ** 2\noptimizer: {{{optimizer}}}\nsteps: [train]\n")
    assert steps_within(plan.optimizers["optimizer"]) is within
