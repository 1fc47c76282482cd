"""The program: every step kind in its short and long forms."""

from __future__ import annotations

from typing import Any

import pytest

from runner.config import (
    Assign,
    Backward,
    ClipGradNorm,
    ClipGradValue,
    Expect,
    Expectation,
    ForEach,
    Forward,
    Next,
    OptimizerStep,
    Repeat,
    Step,
    Stop,
    Train,
    ZeroGrad,
    loads,
)
from runner.config.models import STEP_MODELS
from runner.errors import ConfigError
from tests.tables import over


def program(written: str, **constants: object) -> tuple[Step, ...]:
    return loads(f"parameters: {{x: 1}}\nexpression: f = x\nconstants: {constants}\nsteps: {written}\n").steps


def only(written: str) -> Any:
    (step,) = program(f"[{written}]")
    return step.argument


@over(
    ("written", "expected"),
    [
        ("forward", Forward()),
        ("forward: loss", Forward(objective="loss")),
        ("{forward: {objective: loss}}", Forward(objective="loss")),
        ("backward", Backward()),
        ("{backward: }", Backward()),
        ("backward: loss", Backward(objective="loss")),
        (
            "backward: {objective: f, gradient: ones(3), parameters: x}",
            Backward(objective="f", gradient="ones(3)", parameters=("x",)),
        ),
        ("backward: {gradient: 2}", Backward(gradient=2)),
        ("step", OptimizerStep()),
        ("step: a", OptimizerStep(optimizer=("a",))),
        ("step: [a, b]", OptimizerStep(optimizer=("a", "b"))),
        ("zero_grad", ZeroGrad()),
        ("zero_grad: a", ZeroGrad(optimizer=("a",))),
        ("zero_grad: {set_to_none: false}", ZeroGrad(set_to_none=False)),
        ("zero_grad: {optimizer: [a], set_to_none: false}", ZeroGrad(optimizer=("a",), set_to_none=False)),
        ("train", Train()),
        (
            "train: {objective: f, optimizer: a, accumulate: 2 * k, clip_grad_norm: 1, clip_grad_value: 0.5, data: }",
            Train(objective="f", optimizer=("a",), accumulate="2 * k", clip_grad_norm=1, clip_grad_value=0.5),
        ),
        ("clip_grad_norm: 1.5", ClipGradNorm(max_norm=1.5)),
        ("clip_grad_norm: limit", ClipGradNorm(max_norm="limit")),
        (
            "clip_grad_norm: {max_norm: 1, norm_type: inf, parameters: [a*]}",
            ClipGradNorm(max_norm=1, norm_type=float("inf"), parameters=("a*",)),
        ),
        ("clip_grad_value: 1", ClipGradValue(clip_value=1)),
        ("clip_grad_value: {clip_value: 1}", ClipGradValue(clip_value=1)),
        ("assign: {x: x - x.grad, y: 2, z.grad: true}", Assign(values={"x": "x - x.grad", "y": 2, "z.grad": True})),
        (
            "expect: {f: 1, x.grad: null, g: [1, [2]], h: {value: x, rtol: 1e-3}, i: true, j: nan_like}",
            Expect(
                expectations={
                    "f": Expectation(value=1),
                    "x.grad": Expectation(value=None),
                    "g": Expectation(value=(1, (2,))),
                    "h": Expectation(value="x", rtol=1e-3),
                    "i": Expectation(value=True),
                    "j": Expectation(value="nan_like"),
                }
            ),
        ),
    ],
)
def test_every_form_of_a_step(written: str, expected: object) -> None:
    assert only(written) == expected


def test_a_loop_holds_steps_with_their_places() -> None:
    (loop,) = program(
        "[{repeat: {times: n, steps: [train, "
        "{stop: , when: f < 1, every: 2}, {repeat: {times: 2, steps: [backward]}}]}}]"
    )
    assert loop.argument == Repeat(
        times="n",
        steps=(
            Step(kind="train", argument=Train(), path=("steps", 0, "repeat", "steps", 0)),
            Step(kind="stop", argument=Stop(), when="f < 1", every=2, path=("steps", 0, "repeat", "steps", 1)),
            Step(
                kind="repeat",
                argument=Repeat(
                    times=2,
                    steps=(
                        Step(
                            kind="backward",
                            argument=Backward(),
                            path=("steps", 0, "repeat", "steps", 2, "repeat", "steps", 0),
                        ),
                    ),
                ),
                path=("steps", 0, "repeat", "steps", 2),
            ),
        ),
    )


def test_the_default_program_is_one_backward() -> None:
    (step,) = loads("parameters: {x: 1}\nexpression: f = x\n").steps
    assert (step.kind, step.argument) == ("backward", Backward())


@pytest.mark.parametrize(("written", "times"), [("1000", 1000), ("10 * n", "10 * n"), ("n", "n"), ("train", "train")])
def test_a_count_is_a_loop_over_train(written: str, times: object) -> None:
    (loop,) = program(written, n=3, train=2)
    assert loop.argument == Repeat(times=times, steps=(Step(kind="train", argument=Train(), path=("steps",)),))  # type: ignore[arg-type]
    assert loop.path == ("steps",)


def test_a_condition_may_be_a_constant() -> None:
    (step,) = program("[{backward: , when: true}]")
    assert step.when == "True"


def test_epochs_are_a_for_each_with_one_train() -> None:
    (loop,) = loads("parameters: {x: 1}\nexpression: x\nsteps: {epochs: 3}\n").steps
    train = Step(kind="train", argument=Train(), path=("steps",))
    assert (loop.kind, loop.argument) == ("for_each", ForEach(data=None, epochs=3, steps=(train,)))


@pytest.mark.parametrize(
    ("written", "data", "keeps"),
    [("train", None, False), ("train: {data: null}", None, True), ("train: {data: test}", "test", False)],
)
def test_train_tells_no_data_from_data_that_is_null(written: str, data: str | None, keeps: bool) -> None:
    (step,) = loads(f"parameters: {{x: 1}}\nexpression: x\nsteps: [{written}]\n").steps
    assert (step.argument.data, step.argument.keeps_batch) == (data, keeps)


@pytest.mark.parametrize("written", ["next: a", "next: [a]", "next: {data: a}", "next: {data: [a]}"])
def test_next_takes_one_source_or_several(written: str) -> None:
    (step,) = loads(f"parameters: {{x: 1}}\nexpression: x\nsteps: [{written}]\n").steps
    assert step.argument == Next(data=("a",))


@over("kind", STEP_MODELS)
def test_every_step_refuses_a_key_it_does_not_know(kind: str) -> None:
    expected = (
        "needs `value`"
        if kind == "expect"
        else "takes no argument"
        if kind == "stop"
        else "has no key `unheard_of`|expected an expression"
    )
    with pytest.raises(ConfigError, match=expected):
        program(f"[{{repeat: {{times: 1, steps: [{{{kind}: {{unheard_of: {{}}}}}}]}}}}]")
