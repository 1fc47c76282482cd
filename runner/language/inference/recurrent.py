"""Checks the shapes of recurrent networks, which torch's native code does not check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runner.language.dtypes import dtype_name

Shape = tuple[int, ...]
Check = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class _Sizes:
    """The sizes of a recurrent network, from its input and its states."""

    gates: int
    features: int  # of the input
    hidden: int
    output: int  # of one direction: `hidden`, except in an LSTM with projections
    layers: int
    directions: int

    def weights(self, biases: bool) -> list[Shape]:
        """Returns the shapes of all weights, in torch's order."""
        found: list[Shape] = []
        rows = self.gates * self.hidden
        for layer in range(self.layers):
            width = self.features if layer == 0 else self.output * self.directions
            one = [(rows, width), (rows, self.output), *([(rows,), (rows,)] if biases else [])]
            one += [(self.output, self.hidden)] if self.output != self.hidden else []
            found += one * self.directions
        return found


def check_network(gates: int) -> Check:
    """Returns a check of a recurrent network with `gates` gates: its padded or packed batch, states and weights.

    The check raises ValueError for an invalid shape, dtype or number of weights, and RuntimeError for invalid
    sizes of a packed batch.
    """

    def check(given: Mapping[str, Any]) -> None:
        layers, packed = given["num_layers"], given.get("batch_sizes")
        states, params = _states(given["hx"], gates), list(given["params"])
        x = given["data"] if packed is not None else given["input"]
        if not 1 <= layers <= len(params):
            raise ValueError(f"`num_layers` is {layers:,}, but {len(params)} weights are given")
        wanted = 3 if packed is None else 2
        if x.dim() != wanted or 0 in x.shape:
            raise ValueError(f"the input has shape {tuple(x.shape)}, but {wanted} nonzero sizes are needed")
        if any(state.dim() != 3 or 0 in state.shape for state in states):
            shapes = " and ".join(str(tuple(state.shape)) for state in states)
            raise ValueError(f"the states have the shape {shapes}, but 3 nonzero sizes are needed")
        directions = 2 if given["bidirectional"] else 1
        if packed is None:
            batch = x.shape[0 if given.get("batch_first") else 1]
        else:
            batch = states[0].shape[1]
            _check_packed(packed, x.shape[0], batch)
        sizes = _Sizes(gates, x.shape[-1], states[-1].shape[-1], states[0].shape[-1], layers, directions)
        rows = layers * directions
        _compare("state", states, [(rows, batch, sizes.output), (rows, batch, sizes.hidden)][: len(states)])
        _compare("weight", params, sizes.weights(bool(given["has_biases"])))
        _check_dtypes([x, *states, *params])

    return check


def check_cell(gates: int) -> Check:
    """Returns a check of one recurrent cell. It raises ValueError for an invalid shape or dtype."""

    def check(given: Mapping[str, Any]) -> None:
        x, states = given["input"], _states(given["hx"], gates)
        biases = [given.get("b_ih"), given.get("b_hh")]
        if x.dim() != 2:
            raise ValueError(f"the input has shape {tuple(x.shape)}, but 2 sizes are needed")
        if any(state.dim() != 2 for state in states):
            raise ValueError(f"a state has shape {tuple(states[0].shape)}, but 2 sizes are needed")
        if (biases[0] is None) != (biases[1] is None):
            raise ValueError("one of the two biases is missing: give both or none")
        hidden = states[0].shape[1]
        rows = gates * hidden
        _compare("state", states, [(x.shape[0], hidden)] * len(states))
        _compare("weight", [given["w_ih"], given["w_hh"]], [(rows, x.shape[1]), (rows, hidden)])
        given_biases = [bias for bias in biases if bias is not None]
        _compare("bias", given_biases, [(rows,)] * len(given_biases))
        _check_dtypes([x, *states, given["w_ih"], given["w_hh"], *given_biases])

    return check


def _states(hx: Any, gates: int) -> list[Tensor]:
    if isinstance(hx, Tensor):
        return [hx]
    if len(hx) != (2 if gates == 4 else 1):
        raise ValueError(f"`hx` holds {len(hx)} states")
    return list(hx)


def _compare(what: str, tensors: Sequence[Tensor], wanted: Sequence[Shape]) -> None:
    if len(tensors) != len(wanted):
        raise ValueError(f"expected {len(wanted)} {what}s, but {len(tensors)} are given")
    for position, (tensor, shape) in enumerate(zip(tensors, wanted, strict=True)):
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{what} {position} has shape {tuple(tensor.shape)}, but {shape} is needed")


def _check_dtypes(tensors: Sequence[Tensor]) -> None:
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) > 1:
        names = ", ".join(sorted(dtype_name(dtype) for dtype in dtypes))
        raise ValueError(f"input, states and weights have different dtypes: {names}")


def _check_packed(sizes: Tensor, rows: int, batch: int) -> None:
    if sizes.dim() != 1 or sizes.dtype != torch.int64 or sizes.shape[0] == 0:
        raise ValueError("`batch_sizes` is a list of int64, one size for each step in time")
    fits = (sizes > 0).all() & (sizes <= batch).all() & (sizes[0] == batch) & (sizes.diff() <= 0).all()
    message = "`batch_sizes` must start with the batch size, never increase, and add up to the rows of the data"
    torch._assert_async(fits & (sizes.sum() == rows), message)
