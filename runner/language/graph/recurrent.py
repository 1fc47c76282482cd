"""The arguments of `lstm`, `gru`, `rnn_tanh` and `rnn_relu`, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx

RECURRENT = frozenset(("lstm", "gru", "rnn_tanh", "rnn_relu"))

_SHARED = ("has_biases", "num_layers", "dropout", "train", "bidirectional")
_PADDED = ("input", "hx", "params", *_SHARED, "batch_first")
_PACKED = ("data", "batch_sizes", "hx", "params", *_SHARED)


def recurrent_arguments(node: fx.Node) -> Mapping[str, Any]:
    """Returns the arguments of a recurrent network by the names of its signature, packed or padded."""
    names = _PACKED if _is_packed(node) else _PADDED
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _is_packed(node: fx.Node) -> bool:
    if len(node.args) > 3:  # torch has no names: the fourth is `has_biases` or `params`
        return type(node.args[3]) is not bool
    return "batch_sizes" in node.kwargs or (len(node.args) == 3 and "params" in node.kwargs)
