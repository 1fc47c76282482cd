"""Reports of something non-finite: which tensor, at which index, in which step, and the operation that made it so."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from runner.config.text.nodes import ScalarNode
from runner.engine.state import State
from runner.engine.watch.origin import Origin, origin_of_gradient, origin_of_value
from runner.errors import Problem
from runner.faults import ConfigPath, KeyPath, place
from runner.language.graph.computation import Computation
from runner.language.inference.generators import manual_seed
from runner.language.text.faults import LanguageError, Place
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action, Assign, Evaluate, Evaluation, Result
from runner.plan.streams import stream_seed
from runner.text import shortened

if TYPE_CHECKING:
    from runner.engine.binding import Binding

NOTHING: Mapping[str, str] = MappingProxyType({})
GO_ON = "`on_nonfinite: warn` goes on"
_LONGEST = 60
"""The most characters of an operation that a report quotes."""

_OF_VALUES: Mapping[str, str] = {
    **dict.fromkeys(("log", "log2", "log10", "log1p", "log_"), "keep its argument above 0, as with `clamp(min=1e-6)`"),
    **dict.fromkeys(("sqrt", "rsqrt"), "keep its argument above 0, as with `clamp(min=0)`"),
    **dict.fromkeys(("exp", "exp2", "expm1", "cosh", "sinh"), "keep its argument small: `logsumexp`, `softmax`"),
    **dict.fromkeys(("truediv", "div", "divide", "true_divide", "reciprocal"), "keep the divisor away from 0"),
    "softmax": "leave in each slice something that is not -inf",
}
_OF_DERIVATIVES: Mapping[str, str] = {
    **dict.fromkeys(
        ("sqrt", "rsqrt", "pow", "power", "log"),
        "its derivative is infinite at 0: add a small number to its argument",
    ),
}


def where(plan: Plan, state: State) -> str:
    """The current row and step, for the end of a message: `(row 2, 2.step)`."""
    action = plan.program[state.position] if state.row else None
    path = action.path.format(*state.iterations) if isinstance(action, Action) else "start"
    return f"(row {state.row}, {path})"


def index_of(place: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The index of the element at position `place` in row-major order.

    `torch.unravel_index` returns the same, but imports sympy, which takes most of a second.
    """
    index: list[int] = []
    for length in reversed(shape):
        place, last = divmod(place, length)
        index.append(last)
    return tuple(reversed(index))


def described(name: str, tensor: Tensor, source: str = "") -> str:
    """Describes a non-finite tensor: `h` is nan at [1, 2], from `log(x)`: 1 nan of 8 elements."""
    flat = tensor.detach().reshape(-1)
    nans, infinities = torch.isnan(flat), torch.isinf(flat)
    first = int((nans | infinities).nonzero()[0])
    element = flat[first]
    kind = "nan" if bool(nans[first]) else "infinite" if flat.is_complex() else str(float(element))
    if tensor.numel() == 1:
        return f"`{name}` is {kind}{source}"
    index = list(index_of(first, tensor.shape))
    counts = {"nan": int(nans.sum()), "inf": int(infinities.sum())}
    count = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    return f"`{name}` is {kind} at {index}{source}: {count} of {tensor.numel()} elements"


def at_step(plan: Plan, state: State, message: str, hint: str) -> Problem:
    """A report at the place of the current step."""
    action = plan.program[state.position]
    path = action.config_path if isinstance(action, Action) else ("steps",)
    return plan.config.document.problem(path, f"{message} {where(plan, state)}", hint)


class Replayable:
    """Computes an evaluation again, to report where something non-finite came from."""

    __slots__ = ("before", "binding", "evaluation", "later_draws", "loops")

    def __init__(
        self,
        binding: Binding,
        evaluation: Evaluation,
        loops: Sequence[int],
        later_draws: int = 0,
        before: Collection[str] = (),
    ) -> None:
        """Args:
        later_draws: how many computations have drawn random numbers since the evaluation.
        before: parameters that the step has changed since the evaluation. The previous row or their optimizer has
            their old values.
        """
        self.binding = binding
        self.evaluation = evaluation
        self.loops = loops
        self.later_draws = later_draws
        self.before = before

    def of_value(self, position: int, tensor: Tensor) -> Problem:
        """Builds the report for an output of the evaluation that is not finite."""
        computation, inputs = self._computed()

        def find() -> Origin | None:
            return origin_of_value(computation, inputs, position, _roles(self.binding.plan))

        origin = self._replayed(computation, find)
        name = computation.outputs[position].name
        return value_problem(self.binding, computation, name, tensor, origin)

    def of_gradient(self, parameter: str, tensor: Tensor, cotangent: Tensor | None) -> Problem:
        """Builds the report for a non-finite gradient of a finite objective."""
        plan, state = self.binding.plan, self.binding.state
        computation, inputs = self._computed()
        objective = self.evaluation.objective

        def find() -> Origin | None:
            return origin_of_gradient(computation, inputs, objective, cotangent, parameter, _roles(plan))

        origin = self._replayed(computation, find)
        name = f"{parameter}.grad"
        if origin is None:
            return at_step(plan, state, described(name, tensor), f"scale the objective down; {GO_ON}")
        if origin.masked is not None:
            return _of_masked(self.binding, computation, origin, name, tensor, origin.masked)
        hint = _OF_DERIVATIVES.get(_operation(origin), GO_ON)
        return _placed(
            plan,
            state,
            computation,
            origin,
            lambda text: described(name, tensor, f", from the derivative of {text}"),
            hint,
        )

    def _computed(self) -> tuple[Computation, list[Any]]:
        """The computation for the current batches, and the inputs that it read."""
        evaluation, binding = self.evaluation, self.binding
        computation = evaluation.computation
        if evaluation.variants:
            lengths = tuple(binding.state.batches[source].length for source in evaluation.sources)
            computation = dict(evaluation.variants)[lengths]
        sources = dict(evaluation.batches)

        def value(name: str) -> Any:
            if name not in self.before:
                return _read(binding, name, self.loops, sources)
            weight = binding.recorded(name) if binding.records(name) else binding.stepper(name).before(name)
            assert weight is not None
            return weight.detach().requires_grad_()

        return computation, [value(name) for name in computation.inputs]

    def _replayed(self, computation: Computation, find: Callable[[], Origin | None]) -> Origin | None:
        plan = self.binding.plan
        number = self.binding.state.evaluations - self.later_draws
        return seeded(plan, computation, stream_seed(plan.seed, "expression", "", number), find)


def seeded(plan: Plan, computation: Computation, seed: int, find: Callable[[], Origin | None]) -> Origin | None:
    """Returns the result of `find`, called with the step's random numbers; None if there is not enough memory."""
    if computation.random:
        manual_seed(seed, plan.device)
    try:
        return find()
    except (RuntimeError, MemoryError):  # a replay keeps every result, so it needs more memory than the step
        return None


def value_problem(
    binding: Binding, computation: Computation, name: str, tensor: Tensor, origin: Origin | None
) -> Problem:
    """Builds the report for a non-finite value, at its origin; it names the first named value that is non-finite."""
    plan, state = binding.plan, binding.state
    if origin is None:
        return at_step(plan, state, described(name, tensor), GO_ON)
    if origin.name is not None and origin.value is not None:
        name, tensor = origin.name, origin.value
    if origin.input is not None:
        return _of_input(binding, origin.input, name, tensor)
    if "ratio" in origin.node.meta:
        message = f"{described(name, tensor, ': the sum of its `over` is 0')} {where(plan, state)}"
        hint = "leave no batch without samples that count, or draw larger ones"
        return plan.config.document.problem(("objectives", origin.node.meta["ratio"], "over"), message, hint)
    hint = _OF_VALUES.get(_operation(origin), f"lower the learning rate, or make its argument smaller; {GO_ON}")
    return _placed(plan, state, computation, origin, lambda text: described(name, tensor, f", from {text}"), hint)


def assigned_problem(
    binding: Binding, argument: Assign, loops: Sequence[int], position: int, tensor: Tensor
) -> Problem:
    """Builds the report for a non-finite value that an `assign` step computed, before it is written."""
    plan, state = binding.plan, binding.state
    computation = argument.computations[position]
    later = sum(computation.random for computation in argument.computations[position + 1 :])
    inputs = [_read(binding, name, loops) for name in computation.inputs]

    def find() -> Origin | None:
        return origin_of_value(computation, inputs, 0, _roles(plan))

    origin = seeded(plan, computation, stream_seed(plan.seed, "expression", "", state.evaluations - later), find)
    target = argument.targets[position]
    if origin is None or origin.input is not None:
        message = f"{described(target, tensor)} {where(plan, state)}"
        return plan.config.document.problem(argument.config_paths[position], message, GO_ON)
    return value_problem(binding, computation, target, tensor, replace(origin, name=None))


def evaluated_problem(
    binding: Binding, argument: Evaluate, loops: Sequence[int], result: Result, mean: Tensor
) -> Problem:
    """Builds the report for a non-finite mean of an `evaluate` step, at the first batch that made it so."""
    plan, state = binding.plan, binding.state
    batches = state.batches[argument.source]
    before = batches.taken, batches.seen
    if result.output is None:
        return at_step(plan, state, described(result.name, mean), GO_ON)
    divided: Problem | None = None
    variants = dict(argument.evaluation.variants)
    column = argument.evaluation.batches[0][0]
    try:
        for number, part in enumerate(batches.whole_pass()):
            batch = batches.named(part)
            length = len(batch[column])
            computation = variants.get((length,), argument.evaluation.computation)
            inputs = [
                batch[name] if name in batches.plan else _read(binding, name, loops) for name in computation.inputs
            ]
            seed = stream_seed(plan.seed, "evaluate", argument.source, number)
            find = functools.partial(origin_of_value, computation, inputs, result.output, _roles(plan))
            origin = seeded(plan, computation, seed, find)
            if origin is not None:
                found = value_problem(binding, computation, result.name, mean, replace(origin, name=None))
                if "ratio" not in origin.node.meta:
                    return found
                divided = divided or found  # only the ratio over the whole source counts
    finally:
        batches.taken, batches.seen = before
    if divided is not None:
        return divided
    return at_step(plan, state, described(result.name, mean), GO_ON)


def _read(binding: Binding, name: str, loops: Sequence[int], sources: Mapping[str, str] = NOTHING) -> Any:
    """The current value of an input of a computation."""
    tensor, get = binding.getter(name, loops, sources)
    return tensor if get is None else get()


def _of_input(binding: Binding, given: str, name: str, tensor: Tensor, found: Tensor | None = None) -> Problem:
    """Builds the report for a value that is not finite because an input was not."""
    plan, state = binding.plan, binding.state
    document = plan.config.document
    for source, declared in plan.sources.items():
        batches = state.batches[source]
        if given in declared and given in batches.taken:
            column = batches.taken[given]
            spoilt = (~torch.isfinite(column)).reshape(len(column), -1).any(1).nonzero()
            if len(spoilt):
                sample = batches.sample(int(spoilt[0]))
                message = described(name, tensor, f", from sample {sample} of `{given}` in `{source}`")
                hint = "clean it, or replace it with `nan_to_num`"
                return document.problem(declared[given].path, f"{message} {where(plan, state)}", hint)
    role = plan.tensors[given].role + "s" if given in plan.tensors else "steps"
    end = "" if found is None else f", which is {_first(found)}"
    message = described(name, tensor, f", from the {role.removesuffix('s')} `{given}`{end}")
    return document.problem((role, given), f"{message} {where(plan, state)}", GO_ON, key=True)


_MASK_BOTH = "its derivative is 0 times that: also mask it before, `where(isfinite({0}), {0}, 0)`, not only the result"


def _of_masked(
    binding: Binding, computation: Computation, origin: Origin, name: str, tensor: Tensor, masked: Tensor
) -> Problem:
    """Builds the report for a gradient that is NaN because of a value that the result masks: 0 times NaN is NaN."""
    if origin.input is not None:
        problem = _of_input(binding, origin.input, name, tensor, masked)
        return replace(problem, hint=_MASK_BOTH.format(origin.input))

    def message(text: str) -> str:
        return described(name, tensor, f", from {text}, which is {_first(masked)}")

    return _placed(binding.plan, binding.state, computation, origin, message, _MASK_BOTH.format("x"))


def _first(tensor: Tensor) -> str:
    """Describes the first element that is not finite: `nan at [0]`."""
    flat = tensor.reshape(-1)
    place = int((~torch.isfinite(flat)).nonzero()[0])
    kind = "nan" if bool(torch.isnan(flat[place])) else "infinite"
    return kind if tensor.dim() == 0 else f"{kind} at {list(index_of(place, tensor.shape))}"


def _placed(
    plan: Plan, state: State, computation: Computation, origin: Origin, message: Callable[[str], str], hint: str
) -> Problem:
    """A report at an operation; `message` is called with the text of that operation."""
    meta = origin.node.meta
    at = meta.get("origin", computation.origin)
    path: ConfigPath = ("expression",) if at is None else at
    where_in = meta.get("place")
    text = _written(plan, path, where_in)
    said = f"{message(f'`{text}`' if text else 'this')} {where(plan, state)}"
    if where_in is None:
        return plan.config.document.problem(path, said, hint)
    return place(plan.config.document, path, LanguageError(said, hint, where_in, at))


def _written(plan: Plan, path: ConfigPath, within: Place | None) -> str:
    """The text of an operation in the config."""
    node = plan.config.document.node(path)
    if within is None or isinstance(path, KeyPath) or not isinstance(node, ScalarNode):
        return ""
    lines = str(node.value).split("\n")
    if within.line > len(lines):
        return ""
    text = lines[within.line - 1][within.column : within.column + within.width].strip()
    return shortened(text, _LONGEST)


def _operation(origin: Origin) -> str:
    target = origin.node.target
    return target if isinstance(target, str) else getattr(target, "__name__", "")


def _roles(plan: Plan) -> dict[str, str]:
    return {name: tensor.role for name, tensor in plan.tensors.items()}


def as_warning(problem: Problem) -> Problem:
    """The report as a warning, after which the run continues."""
    return replace(problem, message=f"non-finite: {problem.message}")
