"""Rules of recurrent networks: a sequence of its own for each sample, along one dimension of each result."""

from __future__ import annotations

from torch import fx

from runner.language.graph.recurrent import RECURRENT, recurrent_arguments
from runner.language.pooling.rules import Constant, Rows, State, States, argument_of, name_of, shape_of


def network(states: States, node: fx.Node) -> State | None:
    """The rule of a padded `lstm`, `gru`, `rnn_tanh` or `rnn_relu`: the state of its first result, the output."""
    found = recurrent_arguments(node)
    sequence, first = found.get("input"), found.get("batch_first")
    if not isinstance(sequence, fx.Node) or type(first) is not bool or len(shape_of(sequence)) != 3:
        return None
    output = Rows(0 if first else 1)
    starts, weights = _nodes(found.get("hx")), _nodes(found.get("params"))
    separate = states.of(sequence) == output and all(states.of(start) == Rows(1) for start in starts)
    return output if separate and all(isinstance(states.of(weight), Constant) for weight in weights) else None


def cell(states: States, node: fx.Node) -> State | None:
    """The rule of `lstm_cell`, `gru_cell` and the cells of a plain network."""
    sequence, starts = argument_of(node, 0, "input"), _nodes(argument_of(node, 1, "hx"))
    rows = [sequence, *starts]
    if not all(states.of(operand) == Rows(0) and len(shape_of(operand)) == 2 for operand in rows):
        return None
    others = [operand for operand in node.all_input_nodes if operand not in rows]
    return Rows(0) if all(isinstance(states.of(other), Constant) for other in others) else None


def result(node: fx.Node, place: object, state: State) -> State:
    """The state of one of several results. After the output, a network gives `(layers, samples, features)`."""
    return Rows(1) if name_of(node) in RECURRENT and place != 0 and isinstance(state, Rows) else state


def _nodes(value: object) -> list[fx.Node]:
    values = value if isinstance(value, (tuple, list)) else [value]
    return [each for each in values if isinstance(each, fx.Node)]
