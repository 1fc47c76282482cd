"""How shapes are inferred while planning: the inferences of a plan, and the example tensors that they run on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from runner.language.inference.inference import Bounds, Inference
from runner.language.lowering.diagnosis import AllocationError
from runner.language.text.arithmetic import Scalar
from runner.language.text.faults import LanguageError
from runner.plan.memory import bounded_memory
from runner.plan.tensors.initial import Computed
from runner.plan.tensors.initial_values import Drawings, InitialContext, computed_value, initial_values, tables
from runner.plan.tensors.tensors import TensorPlan

SMALL = 64 << 20
"""Bytes of declared tensors up to which shapes are inferred on the tensors themselves."""

ROOM = 192 << 20
"""Bytes that inference on real tensors may take besides; what wants more is inferred without allocating."""


class WrongInference(Exception):
    """Shapes have to be inferred the other way: without allocating, or on the tensors themselves."""

    def __init__(self, fake: bool) -> None:
        super().__init__()
        self.fake = fake


@dataclass(slots=True)
class Shapes:
    """The inferences of one plan, all over the same bounds.

    `fake` says whether example tensors have no memory; `final` that the other way has failed already.
    """

    bounds: Bounds
    device: str
    fake: bool
    final: bool
    made: list[Inference] = field(default_factory=list)

    def inference(self, gradients: bool = False) -> Inference:
        """A new inference; with `gradients`, one that records them."""
        inference = Inference(self.bounds, gradients, self.device)
        self.made.append(inference)
        return inference

    def retry(self, error: LanguageError) -> None:
        """Give this plan up where the fault is not the config's but of how shapes were inferred.

        Raises:
            WrongInference: there is no room for real tensors, or torch cannot compute with fake ones.
        """
        if self.final:
            return
        if isinstance(error, AllocationError) and not self.fake and (error.bytes or 0) <= self.bounds.bytes:
            raise WrongInference(fake=True)
        if self.fake and isinstance(error.__cause__, _unfakeable()):
            raise WrongInference(fake=False)

    @property
    def bytes(self) -> int:
        """The most that the values of one expression take."""
        return max((inference.bytes for inference in self.made), default=0)


def _unfakeable() -> tuple[type[BaseException], ...]:
    """What fake tensors raise where a shape depends on data, or where torch has no rule for it."""
    from torch._subclasses import fake_tensor

    return (
        fake_tensor.DynamicOutputShapeException,
        fake_tensor.DataDependentOutputException,
        fake_tensor.UnsupportedOperatorException,
        NotImplementedError,
    )


@dataclass(frozen=True, slots=True)
class Examples:
    """A tensor for each declared one, with its shape and dtype; of a small config its initial value."""

    tensors: Mapping[str, Tensor]
    tables: Mapping[str, tuple[Scalar, ...]]  # the elements of short 1-d constants
    drawings: Drawings


def fits(tensors: Mapping[str, TensorPlan], batches: int) -> bool:
    """Whether tensors, and `batches` bytes of batches, are small enough to infer shapes on the tensors themselves."""
    return sum(tensor.bytes for tensor in tensors.values()) + batches <= SMALL


@contextmanager
def example_tensors(
    tensors: Mapping[str, TensorPlan], context: InitialContext, *, fake: bool, memory: int
) -> Iterator[Examples]:
    """Examples of all tensors; while they are in use, memory is bounded, or torch computes on fake tensors.

    Args:
        fake: tensors have no memory.
        memory: bytes that operations on real tensors may take.
    Raises:
        PlacedFault: an initial value cannot be made.
    """
    device = context.environment.device

    def example(name: str, value: Tensor) -> Tensor:
        return value.to(device).requires_grad_(tensors[name].requires_grad)

    if not fake:
        values = initial_values(tensors, context)
        constants = {name: value for name, value in values.items() if tensors[name].role == "constant"}
        made = {name: example(name, value) for name, value in values.items()}
        with bounded_memory(memory):
            yield Examples(made, tables(constants), Drawings(tensors, values))
        return
    from torch._subclasses.fake_tensor import FakeTensorMode

    short = [
        name
        for name, tensor in tensors.items()
        if tensor.role == "constant" and len(tensor.shape) == 1 and tensor.bytes < SMALL
    ]
    found = tables(initial_values(tensors, context, short)) if short else {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        made = {
            name: example(name, torch.empty(tensor.shape, dtype=tensor.dtype, device=device))
            for name, tensor in tensors.items()
        }
        yield Examples(made, found, Drawings({}, {}))


def infer_initial(
    computed: Computed, tensors: Mapping[str, TensorPlan], context: InitialContext
) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of an initial expression.

    Raises:
        LanguageError: it has a fault, or reads more than is computed with while planning.
    """
    if sum(tensors[name].bytes for name in computed.reads if name in tensors) > SMALL:
        raise LanguageError(
            "this initial expression reads more than 64 MiB", "declare its shape, or initialise it otherwise"
        )
    values = initial_values(tensors, context, computed.reads)
    with bounded_memory(ROOM):
        value = computed_value(computed, "shape", values, context)
    return tuple(value.shape), value.dtype
