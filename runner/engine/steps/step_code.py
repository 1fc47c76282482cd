"""Steps as straight-line Python: the code of a step is generated once from its plan, and then run unchanged.

The tensors of a step are bound to names in its code beforehand. So running it looks nothing up, decides nothing and
builds only its row.

Rows keep the tensors themselves, not copies. **Code that writes a weight or a gradient must allocate new storage
first** if a row may have the old one. So optimizers `keep` weights, and `renew_gradients` comes before accumulating or
clipping.
"""

from __future__ import annotations

import cmath
import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from runner.language.graph.computation import Computation
from runner.plan.program.instructions import Evaluation

if TYPE_CHECKING:
    from runner.engine.binding import Binding, Group
    from runner.engine.watch.checks import Check
    from runner.plan.rows.layout import Held

_FILE = "<steprun step>"

SHORT_ROW = 16
"""The most columns of a row that is written out in the code of its step."""

Run = Callable[[], "Held | None"]
"""Runs one step, and returns the values of its row, or None if it has no row."""

Loops = Sequence[int]
"""The numbers of the loops that contain a step, outermost first."""


class StepCode:
    """Builds the code of one step.

    Args:
        binding: the run that the step belongs to.
        loops: the numbers of the loops that contain the step, outermost first.
    """

    def __init__(self, binding: Binding, loops: Sequence[int]) -> None:
        self._binding = binding
        self._loops = loops
        self._lines: list[str] = []
        self._names: dict[str, Any] = {"latest": binding.latest, "values": binding.state.values}
        self._known: dict[int, str] = {}  # id of a bound value → its name
        self._row: dict[int, str] = {}  # column → its value in the row of this step only
        self._groups: dict[Group, str] = {}  # groups of columns that the code has taken
        self._owned: set[str] = set()  # results that share no memory with other tensors

    def name(self, value: Any, hint: str) -> str:
        """The name of a value in the code; the same value keeps its name."""
        known = self._known.get(id(value))
        if known is None:
            known = f"{re.sub(r'[^0-9a-zA-Z_]', '_', hint)}_{len(self._known)}"
            self._known[id(value)] = known
            self._names[known] = value
        return known

    def call(self, function: Callable[..., object], hint: str, *arguments: str) -> None:
        """Add a call of a function with names of the code as arguments."""
        self._lines.append(f"{self.name(function, hint)}({', '.join(arguments)})")

    def look(self, look: Check | None, results: Sequence[str] = ()) -> None:
        """Add a check of the results of the step, and of what it has changed."""
        if look is None:
            return
        given = f"({''.join(f'{result}, ' for result in results)})"
        elements = [f"{results[position]}.item()" for position in look.results]
        elements += [f"{self.name(weight, 'weight')}.item()" for weight in look.weights]
        elements += [f"{self._taken(group)}.sum().item()" for group in look.groups]
        if elements:
            finite = f"{self.name(cmath.isfinite, 'isfinite')}(sum(({', '.join(elements)},)))"
            self._lines.append(f"if not {finite}: {self.name(look.alarm, 'alarm')}({given})")
        if look.more is not None:
            self.call(look.more, "look", given)

    def assign(self, name: str, value: str) -> None:
        """Add an assignment, after which `name` is another name for `value`."""
        self._lines.append(f"{name} = {value}")

    def remove_gradients(self, parameters: Iterable[str]) -> None:
        """`parameter.grad = None`, as `zero_grad` does."""
        for name in parameters:
            self._lines.append(f"{self.name(self._binding.state.parameters[name], name)}.grad = None")

    def renew_gradients(self, parameters: Iterable[str]) -> None:
        """Copy the gradients that a row may have, before they are written in place."""
        for name in parameters:
            if self._binding.position(f"{name}.grad") is not None:
                held = self.name(self._binding.state.parameters[name], name)
                self._lines.append(f"if {held}.grad is not None: {held}.grad = {held}.grad.clone()")

    def evaluate(self, evaluation: Evaluation) -> list[str]:
        """Add an evaluation over the current batches, with gradients; returns the names of its results."""
        computation, binding = evaluation.computation, self._binding
        variants = dict(evaluation.variants)
        alike = all(
            (other.inputs, other.random) == (computation.inputs, computation.random) for other in variants.values()
        )
        arguments = self._arguments(computation, dict(evaluation.batches)) if alike else None
        if arguments is None:
            return self.results(binding.evaluate(evaluation, self._loops, detached=False), evaluation)
        for source in evaluation.sources:
            batches = self.name(binding.state.batches[source], source)
            self._lines.append(f"if not {batches}.batch: {batches}.next()")
        if computation.random:
            self.call(binding.draw_seed, "draw_seed")
        function = self.name(computation.function, "forward")
        if variants:
            functions = {lengths: other.function for lengths, other in variants.items()}
            lengths = "".join(
                f"{self.name(binding.state.batches[source], source)}.length, " for source in evaluation.sources
            )
            function = f"{self.name(functions, 'forward_of')}[{lengths}]"
        return self._results(f"{function}({', '.join(['None', *arguments])})", evaluation)

    def results(self, compute: Callable[[], tuple[Any, ...]], evaluation: Evaluation) -> list[str]:
        """Add a call of a function that computes an evaluation; returns the names of its results."""
        return self._results(f"{self.name(compute, 'compute')}()", evaluation)

    def _results(self, call: str, evaluation: Evaluation) -> list[str]:
        results = [f"r{number}" for number in range(len(evaluation.computation.outputs))]
        self._lines.append(f"{', '.join(results)}, = {call}")
        return results

    def _arguments(self, computation: Computation, sources: Mapping[str, str]) -> list[str] | None:
        """The inputs of a computation as code; None if one may not exist yet."""
        state, found = self._binding.state, []
        for name in computation.inputs:
            tensor, get = self._binding.getter(name, self._loops, sources)
            if get is None:
                found.append(self.name(tensor, name))
            elif name in sources:
                found.append(f"{self.name(state.batches[sources[name]], sources[name])}.batch[{name!r}]")
            elif name == "iteration":
                iterations = self.name(state.iterations, "iterations")
                found.append(f"{iterations}[{self._loops[-1]}]" if self._loops else "1")
            else:
                return None
        return found

    def clip(self, clip: Callable[[], Tensor | None], column: int | None, number: int = 0) -> None:
        """Clip gradients in place, and put their norm before clipping into the row, if it is logged."""
        norm = f"norm_{number}"
        self._lines.append(f"{norm} = {self.name(clip, 'clip')}()")
        if column is not None:
            self._row[column] = norm

    def put(self, column: int, value: Callable[[], Tensor]) -> None:
        """Put a computed value into the row of this step."""
        name = f"column_{column}"
        self._lines.append(f"{name} = {self.name(value, 'value')}()")
        self._row[column] = name

    def keep_weights(self, parameters: Collection[str]) -> None:
        """Put the changed weights of these parameters into this row and later ones."""
        self._keep(parameters, "", ".detach()")

    def keep_gradients(self, parameters: Collection[str]) -> None:
        """Put the changed gradients of these parameters into this row and later ones."""
        self._keep(parameters, ".grad", ".grad")

    def keep_state(self) -> None:
        """Put the changed state of the optimizers into this row and later ones."""
        if self._binding.state_columns:
            self.call(self._binding.capture_state, "capture_state")

    def _keep(self, parameters: Collection[str], suffix: str, attribute: str) -> None:
        for name in parameters:
            position = self._binding.position(name + suffix)
            if position is not None:
                parameter = self.name(self._binding.state.parameters[name], name)
                self._lines.append(f"latest[{position}] = {parameter}{attribute}")
        for group in self._binding.groups_with(name + suffix for name in parameters):
            self._lines.append(f"latest[{group.place}] = {self._taken(group)}")

    def _taken(self, group: Group) -> str:
        """The name of a copy of a group, which the code takes once, after all else that changes it."""
        found = self._groups.get(group)
        if found is None:
            found = self._groups[group] = f"group_{group.place}"
            self._lines.append(f"{found} = {self.name(group.take, 'take')}()")
        return found

    def own_results(self, evaluation: Evaluation, results: Sequence[str]) -> None:
        """Copy the results that share memory with a weight, before weights are written in place."""
        for computed, result in zip(evaluation.computation.outputs, results, strict=True):
            if computed.aliases and not computed.scalar:
                self._lines.append(f"{result} = {result}.detach().clone()")
                self._owned.add(result)

    def keep_results(self, evaluation: Evaluation, results: Sequence[str]) -> None:
        """Keep named values for later steps, and put the logged ones into the row of this step."""
        outputs = evaluation.computation.outputs
        columns, names = dict(evaluation.columns), dict(evaluation.kept)
        for output in sorted({*columns, *names}):
            computed, result = outputs[output], results[output]
            if not computed.scalar and result not in self._owned:
                self._lines.append(f"{result} = {result}.detach(){'.clone()' if computed.aliases else ''}")
            if output in names:
                self._lines.append(f"values[{names[output]!r}] = {result}")
            if output in columns:
                made = f"{self.name(_as_tensor(computed.dtype), 'as_tensor')}({result})" if computed.scalar else result
                if computed.name in self._binding.plan.partial:
                    made = f"{self.name(self._binding.defined(computed.name), 'defined')}({made})"
                self._row[columns[output]] = made

    def function(self) -> Callable[[], Held]:
        """Compiles the code to a function that runs the step and returns the values of its row."""
        text = "def step():\n" + "".join(f"    {line}\n" for line in (*self._lines, *self._returning()))
        exec(_code(text), self._names)  # contains only names from above
        made: Callable[[], Held] = self._names["step"]
        return made

    def _returning(self) -> list[str]:
        """The code that returns the row. It is as long as what the step changes, not as the row, if that is long."""
        columns = len(self._binding.latest)
        if columns <= SHORT_ROW:
            row = "".join(f"{self._row.get(column, f'latest[{column}]')}, " for column in range(columns))
            return [f"return ({row})"]
        changed = [f"row[{column}] = {value}" for column, value in sorted(self._row.items())]
        return ["row = latest.copy()", *changed, "return tuple(row)"] if changed else ["return tuple(latest)"]


@functools.lru_cache(maxsize=256)
def _code(text: str) -> CodeType:
    """Compiles the code of a step; cached, because a run that is bound again generates the same code."""
    return compile(text, _FILE, "exec")


def _as_tensor(dtype: torch.dtype) -> Callable[[Any], Tensor]:
    return functools.partial(torch.tensor, dtype=dtype)
