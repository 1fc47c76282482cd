"""Steps of a rule in place, as CUDA graphs take them: the numbers of the equations, in the storage there is."""

from __future__ import annotations

import torch

from runner.engine import initial_state
from tests.optim.test_rules import compiled, gradients, rule, same, start

UPDATE = "m = beta * m + grad\nparam = param - lr * m / t"


def test_a_step_in_place_is_the_equations_and_keeps_the_storage() -> None:
    state = initial_state(compiled(rule(UPDATE, "{m: 0}")))
    stepper = state.steppers["optimizer"]
    tensors = [state.parameters["x"].detach(), state.parameters["w"].detach()]
    momenta = [stepper.state(name)["m"] for name in ("x", "w")]
    expected, before = list(start()), [torch.zeros(2, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)]
    for t in range(1, 4):
        slopes = gradients(*expected)
        for number, name in enumerate(("x", "w")):
            state.parameters[name].grad = slopes[number].clone()
            before[number] = 0.9 * before[number] + slopes[number]
            expected[number] = expected[number] - 0.1 * before[number] / t
        stepper.step_in_place()
        assert stepper.steps == t
        for number, name in enumerate(("x", "w")):
            same(tensors[number], expected[number])  # the storage from before the first step
            same(momenta[number], before[number])
            assert state.parameters[name].data_ptr() == tensors[number].data_ptr()
            assert stepper.state(name)["m"] is momenta[number]
