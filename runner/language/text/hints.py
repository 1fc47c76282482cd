"""Hints for names that users know from Python, PyTorch and other libraries."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from runner.catalogue import bare_names, measures, operations
from runner.errors import nearest
from runner.language.text.arithmetic import FUNCTIONS

PREFIXES = ("torch", "F", "nn", "functional", "linalg", "special", "fft", "masked", "signal", "math")
"""First parts of dotted operation names. A value of the same name shadows them."""

FOREIGN = ("np", "numpy", "jnp", "jax", "tf", "scipy")
"""First parts of other libraries' function names. Here all operations are torch's."""

_REARRANGE = "axes have no names here: write `x.permute(…)`, `x.reshape(…)` or `x.unflatten(…)`"

_BUILTINS: Mapping[str, str] = {
    "print": "every named value is recorded and shown: give it a name",
    "bool": "compare it: `x != 0`, or cast a tensor: `x.to(bool)`",
    "list": "write `[a, b]`",
    "tuple": "write `(a, b)`",
    "zip": "write the lines out, or a loop over an index",
    "enumerate": "write `for i in range(len(x)):`",
    "map": "write a tensor operation, or a loop",
    "no_grad": "write `x.detach()` to stop the gradient",
    "torch.no_grad": "write `x.detach()` to stop the gradient",
    "autocast": "write `x.to(bfloat16)` for lower precision",
    "rearrange": _REARRANGE,
    "backward": "write a `backward` step",
    "Parameter": "declare it under `parameters:`",
    "nn.Parameter": "declare it under `parameters:`",
    "torch.nn.Parameter": "declare it under `parameters:`",
    **dict.fromkeys(("auroc", "auc", "roc_auc_score"), "write `roc_auc(scores, targets)`"),
    "super": "built-ins of Python are not available; `steprun ops` lists what is",
    "eval": "built-ins of Python are not available; `steprun ops` lists what is",
    "exec": "built-ins of Python are not available; `steprun ops` lists what is",
    "open": "built-ins of Python are not available; `steprun ops` lists what is",
    "getattr": "built-ins of Python are not available; `steprun ops` lists what is",
    "type": "the dtype of a tensor is `x.dtype`",
    "isinstance": "the dtype of a tensor is `x.dtype`",
}
"""Hints for functions of Python and PyTorch that are not operations."""

NAMES: Mapping[str, str] = {
    "true": "write `True`",
    "false": "write `False`",
    "null": "write `None`",
    "none": "write `None`",
    "self": "read parameters and constants by name: `w`, not `self.w`",
    **dict.fromkeys(PREFIXES, "it is the first part of an operation's name: `linalg.det(x)`"),
    "einops": _REARRANGE,
    **dict.fromkeys(FOREIGN, "operations are torch's, and need no prefix: `sin(x)`"),
}
"""Hints for names from other languages and libraries."""


def suggestion(name: str) -> str:
    """Returns a hint for an operation that does not exist."""
    prefix, _, bare = name.rpartition(".")
    prefix = prefix.removeprefix("torch.").removeprefix("torch").removeprefix("nn.functional")
    pool: set[str] = {*bare_names(), *measures(), *FUNCTIONS, "grad"}
    if prefix and prefix != "F":
        pool = {f"{prefix}.{found}" for found in _names_below(prefix)}
        bare = f"{prefix}.{bare}"
    found = nearest(bare, pool)
    return f"did you mean `{found}`?" if found else "`steprun ops` lists every operation"


def other_words(name: str) -> str | None:
    """Returns a hint for calling `name`, if it is a function of Python or PyTorch; else None."""
    return _BUILTINS.get(name) or module_hint(name)


def module_hint(name: str) -> str | None:
    """Returns a hint for a module of `torch.nn`, naming its function: `relu` for `nn.ReLU`. None if it is no module."""
    prefix, _, bare = name.rpartition(".")
    if prefix not in ("nn", "torch.nn", "") or not bare[:1].isupper():
        return None
    plain = bare.lower()
    for wanted in (plain, plain.removesuffix("loss")):
        for found in sorted(bare_names()):
            if found.replace("_", "") == wanted:
                return f"modules have their own parameters: declare them, and write `{found}(…)`"
    return "modules have their own parameters: declare them, and write the computation"


@functools.cache
def _names_below(prefix: str) -> frozenset[str]:
    return frozenset(name.removeprefix(prefix + ".") for name in operations() if name.startswith(prefix + "."))


def cast_hint(name: str) -> str:
    return (
        f"cast a tensor with `x.to({name})`"
        if name in ("int", "float", "bool", "complex")
        else "use a tensor operation"
    )
