"""Weights and optimizer state at addresses that recorded computations know."""

from __future__ import annotations

from torch import Tensor

from runner.engine.binding import Binding
from runner.optim import AnyStepper


class Addresses:
    """Storage that weights, and the state of optimizers stepped within a recording, keep from one replay to the next.

    Whatever is done step by step gives weights new storage, and says so in `moved`; `settle` brings them back. No row
    holds this storage.
    """

    def __init__(self, binding: Binding) -> None:
        self._parameters = binding.state.parameters
        self._weights: dict[str, Tensor] = {}
        self._states: list[tuple[AnyStepper, str, dict[str, Tensor]]] = []
        self._known: set[int] = set()
        self.moved = False

    def hold(self, *steppers: AnyStepper) -> None:
        """Give every weight storage of its own, and keep what the state of some optimizers has."""
        for name, parameter in self._parameters.items():
            if name not in self._weights:
                self._weights[name] = parameter.detach().clone()
        for stepper in steppers:
            if id(stepper) not in self._known:
                self._known.add(id(stepper))
                for name in filter(stepper.holds, self._parameters):
                    held = {key: value for key, value in stepper.state(name).items() if isinstance(value, Tensor)}
                    self._states.append((stepper, name, held))
        self.moved = True
        self.settle()

    def settle(self) -> None:
        """Bring weights and state to their addresses, where they have left them."""
        if not self.moved:
            return
        for name, weight in self._weights.items():
            parameter = self._parameters[name]
            if parameter.data_ptr() != weight.data_ptr():
                weight.copy_(parameter.detach())
                parameter.data = weight
        for stepper, name, held in self._states:
            now = stepper.state(name)
            left = {key: tensor for key, tensor in held.items() if now[key] is not tensor}
            for key, tensor in left.items():
                value = now[key]
                assert isinstance(value, Tensor)
                tensor.copy_(value)
            if left:
                stepper.load_state({name: {**now, **left}}, stepper.steps)
        self.moved = False
