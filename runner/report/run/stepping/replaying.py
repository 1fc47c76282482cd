"""Computes the objective of chosen rows again from their recorded weights, for the value and gradient of each node.

The log has the values of named tensors and the gradients of parameters. What flows between them is computed again:
from the weights that the log kept, and the batch of that row. The objective must come out as the log has it, or
nothing is shown. Of a step of L-BFGS it is the first evaluation. Micro-batches are not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx

from runner.engine.data.batches import Batches
from runner.engine.state import State, initial_state
from runner.engine.watch.replay import replay
from runner.errors import SteprunError
from runner.language.graph.computation import Computation
from runner.language.inference.generators import left_alone, manual_seed
from runner.plan import Plan
from runner.plan.program.instructions import Action, Argument, Backward, Evaluation, Forward, LoopStart, Step, Train
from runner.plan.streams import stream_seed
from runner.record.resuming.stopped import changed_data
from runner.report.run.replayed import Flow, Replayed, Replays
from runner.report.run.stepping.drawing import NotPossible, draws_before
from runner.report.run.subject import Subject

MOST_ELEMENTS = 1 << 20
"""The most elements of all values of one evaluation."""

ALL_ELEMENTS = 1 << 23
"""The most elements of all values of all rows."""

DATA_BYTES = 64 << 20
"""The largest size of the data files of a run whose rows are computed again."""

TENSOR_BYTES = 256 << 20
"""The most bytes of the tensors and the data of a run whose rows are computed again."""

CLOSE = 1e-4
"""How far, relatively, the objective may be from the recorded one, as on another processor."""


def replays(subject: Subject) -> Replays:
    """Compute chosen rows again."""
    plan = subject.plan
    if plan is None:
        return Replays({}, subject.unplanned)
    if plan.loss_scaling is not None:
        return Replays({}, "the loss is scaled")
    if plan.device.partition(":")[0] == "cuda" and not torch.cuda.is_available():
        return Replays({}, "the run was on a CUDA device, and this machine has none")
    if plan.estimates.tensors + plan.estimates.data > TENSOR_BYTES:
        return Replays({}, f"its tensors and data take more than {TENSOR_BYTES >> 20} MiB")
    try:
        _check_data(subject, plan)
        state = initial_state(plan)
    except (SteprunError, OSError) as error:
        found = error.problems[0].message if isinstance(error, SteprunError) else error.strerror
        return Replays({}, f"the data cannot be read again: {found}")
    return _Replayer(subject, plan, state).replays()


def _check_data(subject: Subject, plan: Plan) -> None:
    size = sum(path.stat().st_size for path in plan.files)
    if size > DATA_BYTES:
        raise OSError(0, f"the files have more than {DATA_BYTES >> 20} MiB")
    changed_data(plan, subject.run, allowed=False)


class _Replayer:
    def __init__(self, subject: Subject, plan: Plan, state: State) -> None:
        self._subject, self._plan, self._state = subject, plan, state
        self._patterns = [
            (re.compile(pattern_of(each.path)), each)
            for each in plan.program
            if isinstance(each, Action) and _evaluation(each.argument) is not None
        ]
        self._draws: list[int] = []  # before each row, how often random numbers were drawn
        self._weights = {each.of.name: each for each in subject.tensors if each.of.role == "weight" and each.of.column}
        self._recorded = {each.of.name: each for each in subject.tensors if each.of.role == "value"}

    def replays(self) -> Replays:
        found: dict[int, Replayed] = {}
        reasons: dict[int, str] = {}
        left, largest = ALL_ELEMENTS, 0.0
        for step in self._subject.steps:
            action, iterations = self._action(step.path)
            if action is None:
                continue
            try:
                replayed, elements, differs = self._replayed(step.position, action, iterations, left)
            except NotPossible as reason:
                reasons[step.position] = str(reason)
                continue
            left -= elements
            largest = max(largest, differs)
            found[step.position] = replayed
        return Replays(found, "; ".join(dict.fromkeys(reasons.values())) or None, largest, reasons)

    def _action(self, path: str) -> tuple[Action | None, tuple[int, ...]]:
        for pattern, action in self._patterns:
            match = pattern.fullmatch(path)
            if match:
                return action, tuple(map(int, match.groups()))
        return None, ()

    def _replayed(
        self, position: int, action: Action, iterations: tuple[int, ...], left: int
    ) -> tuple[Replayed, int, float]:
        argument = action.argument
        evaluation, updates = _evaluation(argument), isinstance(argument, (Train, Step))
        assert evaluation is not None
        if isinstance(argument, Train) and argument.accumulate > 1:
            raise NotPossible("a step with micro-batches computes its objective several times")
        if updates and (position == 0 or self._plan.log.every != 1):
            raise NotPossible(f"the log leaves out rows, and with them the weights before a `{action.kind}` step")
        batches = self._batches(evaluation, action, iterations)
        computation = _variant(evaluation, batches)
        elements = sum(_elements(node) for node in computation.nodes)
        if elements > min(MOST_ELEMENTS, left):
            raise NotPossible("the values of the expression are too large for every row")
        seed = self._seed(position) if computation.random else None
        at = position - 1 if updates else position
        columns = {name: batches[source].batch[name] for name, source in evaluation.batches}
        iteration = iterations[-1] if iterations else 1
        inputs = [self._input(name, at, columns, iteration) for name in computation.inputs]
        gradients = not isinstance(argument, Forward) and getattr(argument, "gradient", None) is None
        with _seeded(seed, self._plan.device):
            flow, objective = _computed(computation, inputs, evaluation.objective, gradients)
        name = computation.outputs[evaluation.objective].name
        differs = self._differs(name, objective, position)
        kind = "first" if isinstance(argument, Step) or getattr(argument, "closure", False) else action.kind
        return Replayed(computation, name, flow, kind), elements, differs

    def _seed(self, position: int) -> int:
        """The seed of the random numbers of a row: each evaluation has a stream, counted from 1."""
        if not self._draws:
            self._draws = draws_before(self._plan, self._subject.rows)
        return stream_seed(self._plan.seed, "expression", "", self._draws[position] + 1)

    def _input(self, name: str, at: int, columns: Mapping[str, Tensor], iteration: int) -> Any:
        if name in columns:
            return columns[name]
        if name == "iteration":
            return iteration
        if name in self._state.constants:
            return self._state.constants[name]
        tensor = self._plan.tensors.get(name)
        if tensor is None:
            raise NotPossible(f"`{name}` is left from an earlier step")
        if name not in self._weights:
            raise NotPossible(f"the log has no elements of `{name}`")
        value = self._weights[name].values.get(at)
        if value is None:
            raise NotPossible(f"the page has `{name}` of some rows only")
        return value.to(self._plan.device).requires_grad_(tensor.requires_grad)

    def _batches(self, evaluation: Evaluation, action: Action, iterations: tuple[int, ...]) -> dict[str, Batches]:
        found = {}
        for source in evaluation.sources:
            batches = self._state.batches[source]
            drawn = self._drawn(source, action, iterations)
            epoch, place = divmod(drawn - 1, batches.plan.batches)
            try:
                batches.restore(epoch + 1, place + 1, True)
            except RuntimeError as error:
                raise NotPossible(f"`{source}` cannot be read again") from error
            found[source] = batches
        return found

    def _drawn(self, source: str, action: Action, iterations: tuple[int, ...]) -> int:
        """How many batches of a source a run has drawn up to a step, if each iteration draws one."""
        starts = {each.loop: each for each in self._plan.program if isinstance(each, LoopStart)}
        loops = [starts[loop] for loop in action.loops]
        drawing = [place for place, loop in enumerate(loops) if loop.source == source]
        draws = isinstance(action.argument, Train) and source in action.argument.draws
        inner = len(loops) if draws else drawing[-1] + 1 if drawing else 0
        count = 0
        for loop, iteration in zip(loops[:inner], iterations, strict=False):
            count = count * loop.times + iteration - 1
        return count + 1

    def _differs(self, name: str, objective: Tensor, position: int) -> float:
        """How far an objective is from the recorded one, relatively; raises NotPossible if it is another."""
        recorded = self._recorded_value(name, position)
        if recorded is None:
            raise NotPossible(f"the log has no `{name}` to compare with")
        now = objective.detach().cpu().double().reshape(-1)
        if now.shape != recorded.shape:
            raise NotPossible(f"`{name}` of a row comes out with another shape")
        same = (now == recorded) | (now.isnan() & recorded.isnan())
        if bool(same.all()):
            return 0.0
        size = float(recorded.abs().max())
        differs = float((now - recorded).abs().max()) / size if size else float("inf")
        if not differs <= CLOSE:
            raise NotPossible(f"`{name}` of a row comes out with another value")
        return differs

    def _recorded_value(self, name: str, position: int) -> Tensor | None:
        if name in self._subject.numbers:
            found = self._subject.numbers[name].get(position)
            return None if found is None else torch.tensor([found], dtype=torch.float64)
        tensor = self._recorded.get(name)
        value = None if tensor is None else tensor.values.get(position)
        return None if value is None else value.double().reshape(-1)


def pattern_of(template: str) -> str:
    """A pattern for the paths that a template makes: `repeat[{0}].2.train`."""
    return re.sub(r"\\\{\d+\\\}", r"(\\d+)", re.escape(template))


def _evaluation(argument: Argument) -> Evaluation | None:
    """The evaluation of a step whose row can have inner values."""
    match argument:
        case Forward(evaluation) | Backward(evaluation=evaluation) | Train(evaluation=evaluation):
            return evaluation
        case Step(closure=closure):
            return closure
    return None


@contextmanager
def _seeded(seed: int | None, device: str) -> Iterator[None]:
    """Random numbers from a seed; those of the process stay where they were."""
    if seed is None:
        yield
        return
    with left_alone(device):
        manual_seed(seed, device)
        yield


def _variant(evaluation: Evaluation, batches: Mapping[str, Batches]) -> Computation:
    if not evaluation.variants:
        return evaluation.computation
    lengths = tuple(batches[source].length for source in evaluation.sources)
    found = dict(evaluation.variants).get(lengths)
    if found is None:
        raise NotPossible("a batch has another length")
    return found


def _elements(node: fx.Node) -> int:
    example = node.meta.get("example")
    return example.numel() if isinstance(example, Tensor) else 1


def _computed(computation: Computation, inputs: Sequence[Any], objective: int, gradients: bool) -> tuple[Flow, Tensor]:
    """The value of each node, and its gradient of the objective."""
    try:
        with torch.enable_grad():
            made = replay(computation.graph, inputs)
            output = made.output(objective)
            if output is None or not isinstance(output.value, Tensor):
                raise NotPossible("the objective is a number that nothing computes")
            tensors = {id(each): each for done in made.done for each in done.tensors if each.requires_grad}
            found: dict[int, Tensor | None] = {}
            if gradients and output.value.numel() == 1 and output.value.requires_grad:
                given = torch.autograd.grad(output.value, list(tensors.values()), allow_unused=True)
                found = dict(zip(tensors, given, strict=True))
    except (RuntimeError, ValueError, MemoryError, IndexError) as error:
        raise NotPossible("torch cannot compute it again") from error
    # the graph of a replay is a copy; its nodes are those of the computation, in order
    originals = {id(node.meta): node for node in computation.nodes}
    flow: Flow = {}
    for done in made.done:
        node = originals.get(id(done.node.meta))
        if node is not None:
            gradient = next((found[id(each)] for each in done.tensors if found.get(id(each)) is not None), None)
            flow[node] = done.value, gradient
    return flow, output.value
