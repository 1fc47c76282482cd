"""The outputs of an evaluation whose values are combined over several batches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from runner.language.graph.computation import Computation, computed_from
from runner.language.graph.lowered import Lowered
from runner.language.pooling.pooling import Constant, Derived, Mixed, Pooling, Rows, State, Term, twins
from runner.plan.program.instructions import Part


class Outputs:
    """The outputs of a pooled evaluation: the requested values, followed by the values to compute them from.

    Args:
        columns: the batch columns, which have an entry per sample.
        other: the same expression for another batch length, if numbers in it may depend on the length.
    """

    def __init__(self, lowered: Lowered, wanted: Sequence[str], columns: Sequence[str], other: Lowered | None) -> None:
        self.lowered = lowered
        nodes = self.nodes = list(lowered.graph.nodes)
        self._values = [lowered[name] for name in wanted]
        self._pooling = Pooling(nodes, columns, None if other is None else twins(nodes, list(other.graph.nodes)))
        self._names = wanted
        self._known: dict[fx.Node, int] = {}
        self.extra: list[fx.Node] = []
        self.states = [self._pooling.of(value) for value in self._values]
        self.parts = [Part("mean")] * len(wanted)
        self.places = [place for place, state in enumerate(self.states) if isinstance(state, Derived)]
        self._cuts = {
            node: self._output(node) for place in self.places for node in self._pooling.parts(self._values[place])
        }
        for node, output in self._cuts.items():
            self.parts[output] = self._part(self._pooling.of(node))
        for position, state in enumerate(self.states):
            self.parts[position] = Part("last") if isinstance(state, Derived) else self._part(state)

    @property
    def names(self) -> tuple[str, ...]:
        """The named values of the expression."""
        return tuple(self.lowered.values)

    def node(self, name: str) -> fx.Node | None:
        """The node of a batch column, or of a named value or metric that is not a fixed number."""
        if name in self.lowered.values or name in self.lowered.metrics:
            value = self.lowered[name]
            return value if isinstance(value, fx.Node) else None
        return next((node for node in self.nodes if node.op == "placeholder" and node.meta["input"] == name), None)

    def state(self, name: str) -> State:
        """The state of a batch column, a named value or a metric."""
        return self._pooling.of(self.node(name))

    def same_in_every_batch(self, summed: fx.Node) -> bool:
        """Whether what a declared sum is over does not depend on the batch, so that its sum counts batches."""
        operand = summed.args[0]
        if not isinstance(operand, fx.Node):
            return self._pooling.length_scale(summed) is None
        return isinstance(self._pooling.of(operand), Constant)

    def ancestors(self, name: str) -> list[fx.Node]:
        """The operations and inputs that a named value or metric is computed from."""
        node = self.node(name)
        found = {} if node is None else {node: None}
        pending = list(found)
        while pending:
            for operand in pending.pop().all_input_nodes:
                if operand not in found:
                    found[operand] = None
                    pending.append(operand)
        return list(found)

    def gather(self, name: str) -> int:
        """The index of the output with the values of all samples; appends the output if it is new."""
        node = self.node(name)
        assert node is not None
        output, state = self._output(node), self.state(name)
        self.parts[output] = Part("rows", dim=state.dim) if isinstance(state, Rows) else Part("same")
        return output

    def blamed(self, place: int) -> fx.Node | None:
        """The operation that makes a value depend on the batching, or None."""
        state, value = self.states[place], self._values[place]
        if isinstance(state, Mixed):
            return state.node
        return value if isinstance(state, Rows) and isinstance(value, fx.Node) else None

    def derived(self) -> Computation | None:
        """The computation of the values at `places` from pooled outputs; None if there are none."""
        if not self.places:
            return None
        inputs = {node: str(output) for node, output in self._cuts.items()}
        return computed_from(inputs, [self._names[at] for at in self.places], [self._values[at] for at in self.places])

    def _output(self, node: fx.Node) -> int:
        """The index of a node among the outputs; appends the node if it is new."""
        if node not in self._known:
            self._known[node] = len(self.parts)
            self.extra.append(node)
            self.parts.append(Part("last"))
        return self._known[node]

    def _part(self, state: State) -> Part:
        if not isinstance(state, Term):
            return Part("mean")
        weights = state.weights
        if weights is None:
            return Part(state.pool)
        weight = None if weights.weight is None else self._output(weights.weight)
        return Part("weighted", (self._output(weights.target), weight, weights.ignore_index))
