"""Weights and optimizer state at the fixed addresses that recorded computations use."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Parameter

from runner.engine.binding import Binding
from runner.optim import AnyStepper


class Addresses:
    """Fixed storage for weights, and for the state of optimizers that step inside a recording.

    Other steps may replace a weight's storage; `settle` copies it back. Rows never share this storage.
    """

    def __init__(self, binding: Binding) -> None:
        self._parameters = binding.state.parameters
        self._weights: list[tuple[Parameter, Tensor, int]] = []  # the parameter, its storage, and the address of that
        self._states: list[tuple[AnyStepper, str, dict[str, Tensor]]] = []
        self._known: set[int] = set()

    def hold(self, *steppers: AnyStepper) -> None:
        """Gives every weight fixed storage, and fixes the current storage of some optimizers' state."""
        if not self._weights:
            fixed = [(parameter, parameter.detach().clone()) for parameter in self._parameters.values()]
            self._weights = [(parameter, weight, weight.data_ptr()) for parameter, weight in fixed]
        for stepper in steppers:
            if id(stepper) not in self._known:
                self._known.add(id(stepper))
                for name in filter(stepper.holds, self._parameters):
                    self._states.append((stepper, name, _tensors(stepper, name)))
        self.settle()

    def settle(self) -> None:
        """Copies weights and state back to their addresses if their storage has changed."""
        for parameter, weight, address in self._weights:
            if parameter.data_ptr() != address:
                weight.copy_(parameter.detach())
                parameter.data = weight
        for stepper, name, fixed in self._states:
            now = _tensors(stepper, name)
            left = {entry for entry, tensor in fixed.items() if now[entry] is not tensor}
            for entry in left:
                fixed[entry].copy_(now[entry])
            if left:
                stepper.load_state({name: {**stepper.state(name), **fixed}}, stepper.steps)


def _tensors(stepper: AnyStepper, name: str) -> dict[str, Tensor]:
    return {entry: value for entry, value in stepper.state(name).items() if isinstance(value, Tensor)}
