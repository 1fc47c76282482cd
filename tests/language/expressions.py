"""Random expressions: well-formed ones over 3 × 3 tensors, and plausible ones that are mostly wrong."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

INTEGERS = st.one_of(
    st.integers(-3, 4).map(str), st.sampled_from(["n", "iteration", "x.shape[0]", "n * 2", "(n - iteration)"])
)
NUMBERS = st.one_of(INTEGERS, st.floats(-2, 2, width=16).map(repr), st.sampled_from(["pi", "rate", "inf"]))
CONDITIONS = st.sampled_from(
    ["iteration > 1", "n > 2", "iteration % 2 == 0 and n > 1", "not iteration > 2", "1 < iteration < 4", "flag"]
)
TENSORS = st.sampled_from(
    [
        "x",
        "y",
        "m",
        "k",
        "c",
        "eye(3)",
        "x[0]",
        "y[..., None, 0]",
        "m[:, [0, 2, 1]]",
        "c[iteration]",
        "k.T",
        "x[:, 1:2]",
    ]
)
UNARY = [
    "relu({})",
    "F.gelu({})",
    "tanh({})",
    "({}).sin()",
    "-({})",
    "torch.exp(-({}).abs())",
    "({}).sum()",
    "({}).mean(dim=-1, keepdim=True)",
    "softmax(({}) * 1.0, dim=0)",
    "({}).clamp(min=-1.0, max=2.0)",
    "({}) ** 2",
    "2 ** ({})",
    "-1.5 ** ({})",
    "(-1.5) ** ({})",
    "where(({}) > 0, 1.0, -1.0)",
    "({}).to(float64)",
    "({}).detach()",
    "({})[0]",
    "({}).reshape(-1)",
    "({}).T",
    "special.expit({})",
    "cumsum({}, 0)",
]
BINARY = [
    "({}) + ({})",
    "({}) - ({})",
    "({}) * ({})",
    "({}) / ({})",
    "({}) // ({})",
    "({}) % ({})",
    "({}) @ ({})",
    "maximum({}, {})",
    "({}) < ({})",
    "({}) == ({})",
    "stack([{}, {}])",
    "torch.atan2({}, {})",
    "cat([({}).reshape(-1), ({}).reshape(-1)])",
]


def _composed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds(str.format, st.sampled_from(UNARY), inner),
        st.builds(str.format, st.sampled_from(BINARY), inner, inner),
        st.builds(str.format, st.sampled_from(BINARY), inner, NUMBERS),
        st.builds(str.format, st.sampled_from(BINARY), NUMBERS, inner),
        st.builds("({}) if {} else ({})".format, inner, CONDITIONS, inner),
        st.builds(
            "({})[{}]".format, inner, st.sampled_from(["0", "-1", "...", "None", ":2", "::2", "n - 3", "iteration - 1"])
        ),
    )


WELL_FORMED = st.recursive(TENSORS, _composed, max_leaves=8)
"""Expressions that mostly have a value; where they have none, torch says so."""

WORDS = [
    "x",
    "y",
    "w",
    "c",
    "k",
    "n",
    "iteration",
    "training",
    "flag",
    "f",
    "g",
    "relu",
    "softmax",
    "F",
    "torch",
    "nn",
    "linalg.det",
    "math",
    "grad",
    "tensor",
    "zeros",
    "range",
    "len",
    "max",
    "sum",
    "reshape",
    "shape",
    "T",
    "dim",
    "dtype",
    "float32",
    "None",
    "True",
    "pi",
    "nan",
    "for",
    "in",
    "if",
    "else",
    "and",
    "or",
    "not",
    "lambda",
    "is",
    "0",
    "1",
    "2",
    "-1",
    "0.5",
    "1e400",
    "10**12",
    "2**62",
    "'a'",
    "'sum'",
    "1j",
    "...",
    "=",
    "==",
    "<",
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "**",
    "@",
    "&",
    "|",
    "^",
    "~",
    ".",
    ",",
    ":",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "\n",
    "  ",
    "\n  ",
    "__class__",
    "_x",
    ":=",
    "(x)",
    "[0]",
    "(x, 1)",
    "dim=0",
    "*x",
    "**x",
    "x.shape",
    "x if n else y",
    "y = x",
    "for i in range(3):\n  y = x",
]
PLAUSIBLE = st.lists(st.one_of(st.sampled_from(WORDS), WELL_FORMED), min_size=1, max_size=8).flatmap(
    lambda parts: st.sampled_from(["", " "]).map(lambda glue: glue.join(parts))
)
"""Texts made of the language's own words in any order."""


def tensors() -> dict[str, Tensor]:
    """`x`, `y` and `m` of 3 × 3, `k` of integers, `c` and `rates` of one dimension."""
    generator = torch.Generator().manual_seed(5)
    x, y, m = (torch.randn(3, 3, generator=generator) for _ in range(3))
    return {
        "x": x,
        "y": y,
        "m": m,
        "k": torch.arange(9).reshape(3, 3) - 4,
        "c": torch.tensor([0.5, -1.0, 2.0]),
        "rates": torch.tensor([0.1, 0.7, 3.0, -2.0]),
    }


def python_names(iteration: int) -> dict[str, Any]:
    """What the names of an expression are for Python's own `eval`."""
    bare = {name: getattr(F, name, None) or getattr(torch, name) for name in _BARE}
    scalars = {
        "n": 3,
        "rate": 0.1,
        "flag": True,
        "iteration": iteration,
        "pi": torch.pi,
        "inf": torch.inf,
        "float64": torch.float64,
    }
    given = tensors()
    return {
        **bare,
        **scalars,
        **given,
        "torch": torch,
        "F": F,
        "special": torch.special,
        "rates": given["rates"].tolist(),
    }


_BARE = ["relu", "tanh", "softmax", "where", "maximum", "stack", "cat", "eye", "cumsum"]
