"""Shape inference during planning: the inferences of a plan, and their example tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from runner.faults import ConfigPath
from runner.language.inference.inference import Bounds, Inference
from runner.language.lowering.diagnosis import AllocationError
from runner.language.text.arithmetic import Scalar
from runner.language.text.faults import LanguageError
from runner.plan.memory import bounded_memory
from runner.plan.tensors.fitting import room_for_columns
from runner.plan.tensors.initial import Computed
from runner.plan.tensors.initial_values import Drawings, InitialContext, computed_value, initial_values, tables
from runner.plan.tensors.tensors import TensorPlan

SMALL = 64 << 20
"""Maximum bytes of declared tensors for inferring shapes on real tensors."""

ROOM = 192 << 20
"""Additional bytes that inference on real tensors may allocate; larger expressions are inferred on fake tensors."""


class WrongInference(Exception):
    """Shapes must be inferred the other way: on fake tensors, or on real ones."""

    def __init__(self, fake: bool) -> None:
        super().__init__()
        self.fake = fake


Warned = tuple[ConfigPath, str, LanguageError]
"""A warning of torch: the expression in the config, torch's text, and the same at its operation."""


@dataclass(slots=True)
class Shapes:
    """The inferences of one plan, which share their bounds.

    `fake` is whether example tensors are fake; `final` is whether the other way has already failed.
    """

    bounds: Bounds
    device: str
    fake: bool
    final: bool
    made: list[Inference] = field(default_factory=list)
    warned: list[Warned] = field(default_factory=list)

    def inference(self, gradients: bool = False, path: ConfigPath = ("expression",)) -> Inference:
        """Returns a new inference, which records gradients if `gradients` is true.

        Args:
            path: the expression in the config, for torch's warnings about it.
        """

        def warn(text: str, error: LanguageError) -> None:
            self.warned.append((path, text, error))

        inference = Inference(self.bounds, gradients, self.device, warn)
        self.made.append(inference)
        return inference

    def retry(self, error: LanguageError) -> None:
        """Abandon this plan if the error comes from the way of inferring shapes and not from the config.

        Raises:
            WrongInference: memory is too small for real tensors, or torch cannot compute with fake ones.
        """
        if self.final:
            return
        if isinstance(error, AllocationError) and not self.fake and (error.bytes or 0) <= self.bounds.bytes:
            raise WrongInference(fake=True)
        if self.fake and isinstance(error.__cause__, _unfakeable()):
            raise WrongInference(fake=False)

    @property
    def bytes(self) -> int:
        """Maximum bytes of the values of one expression."""
        return max((inference.bytes for inference in self.made), default=0)


def _unfakeable() -> tuple[type[BaseException], ...]:
    """The exceptions of fake tensors if a shape depends on data, or if torch has no rule for an operation."""
    from torch._subclasses import fake_tensor

    return (
        fake_tensor.DynamicOutputShapeException,
        fake_tensor.DataDependentOutputException,
        fake_tensor.UnsupportedOperatorException,
        NotImplementedError,
    )


@dataclass(frozen=True, slots=True)
class Examples:
    """An example of each declared tensor, with its shape and dtype; small configs have the initial values."""

    tensors: Mapping[str, Tensor]
    tables: Mapping[str, tuple[Scalar, ...]]  # the elements of short 1-d constants
    drawings: Drawings


def fits(tensors: Mapping[str, TensorPlan], batches: int) -> bool:
    """Whether tensors, and `batches` bytes of batches, are small enough to infer shapes on real tensors."""
    return sum(tensor.bytes for tensor in tensors.values()) + batches <= SMALL


@contextmanager
def example_tensors(
    tensors: Mapping[str, TensorPlan], context: InitialContext, *, fake: bool, memory: int
) -> Iterator[Examples]:
    """Context manager with examples of all tensors; limits memory, or makes torch compute on fake tensors.

    Args:
        fake: whether to use fake tensors, which have no memory.
        memory: bytes that operations on real tensors may allocate.
    Raises:
        PlacedFault: an initial value cannot be computed.
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
    """The shape and dtype of an initial expression.

    Raises:
        PlacedFault: a column of a data source cannot be read.
        LanguageError: it is invalid, or reads more bytes than planning computes with.
    """
    recorded = context.fitted.get(str(computed.path[1]))
    if recorded is not None:
        return tuple(recorded.shape), recorded.dtype
    if sum(tensors[name].bytes for name in computed.reads if name in tensors) > SMALL:
        raise LanguageError(
            "this initial expression reads more than 64 MiB", "declare its shape, or initialise it in another way"
        )
    values = initial_values(tensors, context, computed.reads)
    with bounded_memory(ROOM + room_for_columns(context)):
        value = computed_value(computed, "shape", values, context)
    return tuple(value.shape), value.dtype
