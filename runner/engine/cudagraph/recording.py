"""The recorded part of a `train` step: a function over tensors at fixed addresses, and its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from runner.engine.binding import Binding
from runner.engine.steps import steps
from runner.engine.steps.autograd import Differentiate
from runner.engine.steps.micro_batches import Shares, shares_by_length, together
from runner.engine.steps.optimizer_step import owned
from runner.language.graph.computation import Computation
from runner.plan.program.instructions import Train
from runner.plan.rows.layout import Held


class Recording:
    """The computation of a step for one combination of batch lengths.

    `compute` and `gather` can be recorded or called directly. Call `draw` before them, `restore` and `row` after.
    `results`, `norms` and the gradients are the same tensors from the first `compute` on.
    """

    def __init__(
        self, binding: Binding, argument: Train, lengths: Sequence[int], updates: Sequence[Callable[[], None]]
    ) -> None:
        """Args:
        lengths: the batch length of each source, in each micro-batch; empty if they never change.
        updates: called at the end of `compute`.
        """
        self._binding = binding
        self._argument = argument
        self._updates = updates
        self._parameters = binding.parameters(argument.parameters)
        inputs = None if argument.inputs is None else list(binding.parameters(argument.inputs).values())
        self._differentiate = Differentiate(inputs)
        self._clips = [(steps.clipping_of(binding, clip), clip.column) for clip in argument.clips]
        self._columns = dict(argument.evaluation.batches)
        self._batches: list[dict[str, Tensor]] = []  # the storage of the columns, for each micro-batch
        self._calls: list[Callable[[], tuple[Any, ...]]] = []
        sources = argument.evaluation.sources
        variants = dict(argument.evaluation.variants)
        again = [place for place, name in enumerate(sources) if name in argument.draws_again]
        each = [
            lengths[number * len(sources) + again[0]] if lengths and again else 1
            for number in range(argument.accumulate)
        ]
        self._shares = Shares([(1, 1)], [(1, 1)]) if argument.accumulation is None else shares_by_length(argument, each)
        for number in range(argument.accumulate):
            own = tuple(lengths[number * len(sources) : (number + 1) * len(sources)])
            self._add(variants[own] if own else argument.evaluation.computation, dict(zip(sources, own, strict=False)))
        self._gathered: list[_Gathered] = []
        self._gradients: dict[str, Tensor | None] = {}
        self._fixed: list[tuple[int, Tensor]] = []
        self.random = any(computation.random for computation in argument.evaluation.computations())
        self.results: tuple[Any, ...] = ()
        self.norms: list[Tensor] = []
        outputs = argument.evaluation.computation.outputs
        self._partial = [
            (column, binding.defined(outputs[output].name))
            for output, column in argument.evaluation.columns
            if outputs[output].name in binding.plan.partial
        ]

    def _add(self, computation: Computation, lengths: dict[str, int]) -> None:
        state, plan = self._binding.state, self._binding.plan
        storage: dict[str, Tensor] = {}
        for name in filter(self._columns.__contains__, computation.inputs):
            source = plan.sources[self._columns[name]]
            shape = (lengths.get(source.name, source.batch_size), *source[name].shape)
            storage[name] = torch.zeros(shape, dtype=source[name].dtype, device=plan.device)
        known = {**state.constants, **state.parameters, **storage}
        inputs = [known[name] for name in computation.inputs]
        function = computation.function
        self._batches.append(storage)
        self._calls.append(lambda: function(None, *inputs))

    def draw(self) -> None:
        """Draws the batches of the step, as the eager engine does, into their storage."""
        argument, batches = self._argument, self._binding.state.batches
        for number, storage in enumerate(self._batches):
            for name in argument.draws_again if number else argument.draws:
                batches[name].next()
            for name in argument.evaluation.sources:
                if not batches[name].drawn:
                    batches[name].next()
            for name, tensor in storage.items():
                tensor.copy_(batches[self._columns[name]].batch[name], non_blocking=True)

    def all(self) -> None:
        """`compute`, then `gather`."""
        self.compute()
        self.gather()

    def compute(self) -> None:
        """Clears the gradients, computes results and gradients, clips, and updates."""
        objective = self._argument.evaluation.objective
        for parameter in self._parameters.values():
            parameter.grad = None
        results: tuple[Any, ...] = ()
        micro: list[tuple[Any, ...]] = []
        for call, share in zip(self._calls, self._shares.objective, strict=True):
            results = call()
            self._differentiate(results[objective], share)
            micro.append(tuple(value.detach() if isinstance(value, Tensor) else value for value in results))
        if self._argument.accumulation is not None:
            results = together(self._argument.accumulation.parts, micro, self._shares)
        self.results = tuple(
            value.detach() if isinstance(value, Tensor) else value
            for value in owned(self._argument.evaluation, results)
        )
        norms = [(column, clip()) for clip, column in self._clips]
        self.norms = [norm for _, norm in norms if norm is not None]
        for update in self._updates:
            update()
        self._gradients = {name: parameter.grad for name, parameter in self._parameters.items()}
        self._prepare([(column, norm) for column, norm in norms if column is not None and norm is not None])

    def restore(self) -> None:
        """Assigns the computed gradients to the parameters again; later code may have replaced them."""
        for name, gradient in self._gradients.items():
            self._parameters[name].grad = gradient

    # the tensors of a row

    def _prepare(self, norms: Sequence[tuple[int, Tensor]]) -> None:
        """Collects the tensors of a row, and allocates one buffer for each dtype."""
        binding, evaluation = self._binding, self._argument.evaluation
        gathered: dict[torch.dtype, _Gathered] = {}

        def add(source: Tensor, column: int | None, name: str | None = None, *, lasts: bool = False) -> None:
            gathered.setdefault(source.dtype, _Gathered()).add(source, _Place(column, name, lasts))

        columns, names = dict(evaluation.columns), dict(evaluation.kept)
        for output in sorted({*columns, *names}):
            declared, value = evaluation.computation.outputs[output], self.results[output]
            column, name = columns.get(output), names.get(output)
            if isinstance(value, Tensor):
                add(value, column, name)
            elif column is not None:
                self._fixed.append((column, torch.tensor(value, dtype=declared.dtype)))
        for column, norm in norms:
            add(norm.to(binding.plan.columns[column].dtype), column)
        for name, gradient in self._gradients.items():
            position = binding.position(f"{name}.grad")
            if position is not None and gradient is not None:
                add(gradient, position, lasts=True)
        for optimizer in self._argument.optimizers:
            for name in binding.plan.optimizers[optimizer].parameters:
                position = binding.position(name)
                if position is not None:
                    add(binding.state.parameters[name].detach(), position, lasts=True)
        self._gathered = list(gathered.values())
        for found in self._gathered:
            found.make()

    def gather(self) -> None:
        """Copies the tensors of the row into the buffers."""
        with torch.no_grad():
            for gathered in self._gathered:
                torch._foreach_copy_(gathered.parts, gathered.sources)

    def row(self) -> Held:
        """Returns the row in its own memory, and updates the named values, weights and gradients for later rows."""
        binding, evaluation = self._binding, self._argument.evaluation
        latest, values = binding.latest, binding.state.values
        own: list[tuple[int, Tensor]] = list(self._fixed)
        for output, name in evaluation.kept:
            if not isinstance(self.results[output], Tensor):
                values[name] = self.results[output]
        for name, gradient in self._gradients.items():
            position = binding.position(f"{name}.grad")
            if gradient is None and position is not None:
                latest[position] = None
        for gathered in self._gathered:
            for tensor, place in zip(gathered.taken(), gathered.places, strict=True):
                if place.name is not None:
                    values[place.name] = tensor
                if place.lasts and place.column is not None:
                    latest[place.column] = tensor
                elif place.column is not None:
                    own.append((place.column, tensor))
        binding.capture_state()
        row = latest.copy()
        for column, tensor in own:
            row[column] = tensor
        for column, defined in self._partial:
            row[column] = defined(row[column])
        return tuple(row)


@dataclass(frozen=True, slots=True)
class _Place:
    """The destination of a tensor in a row."""

    column: int | None
    name: str | None  # of the named value, if it is one
    lasts: bool  # later rows contain it too


@dataclass(slots=True)
class _Gathered:
    """The tensors of a row that have one dtype."""

    sources: list[Tensor] = field(default_factory=list)
    places: list[_Place] = field(default_factory=list)
    parts: list[Tensor] = field(default_factory=list)  # views of `whole`, in the shapes of the sources
    whole: Tensor | None = None

    def add(self, source: Tensor, place: _Place) -> None:
        self.sources.append(source)
        self.places.append(place)

    def make(self) -> None:
        """Allocates the buffer for the sources."""
        size = sum(source.numel() for source in self.sources)
        self.whole = torch.empty(size, dtype=self.sources[0].dtype, device=self.sources[0].device)
        self.parts = self._cut(self.whole)

    def taken(self) -> list[Tensor]:
        """Returns the last gathered tensors as copies that nothing overwrites."""
        assert self.whole is not None
        return self._cut(self.whole.clone())

    def _cut(self, whole: Tensor) -> list[Tensor]:
        parts = whole.split_with_sizes([source.numel() for source in self.sources])
        return [part.view(source.shape) for part, source in zip(parts, self.sources, strict=True)]
