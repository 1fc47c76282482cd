"""What to do instead of what people know from Python, PyTorch and other libraries."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from runner.catalogue import bare_names, operations
from runner.errors import nearest
from runner.language.text.arithmetic import FUNCTIONS

PREFIXES = ("torch", "F", "nn", "functional", "linalg", "special", "fft", "masked", "signal", "math")
"""First names of dotted operations; a value of the same name hides them."""

FOREIGN = ("np", "numpy", "jnp", "jax", "tf", "scipy")
"""First names of other libraries' functions, which are torch's here."""

_REARRANGE = "axes have no names here: write `x.permute(…)`, `x.reshape(…)` or `x.unflatten(…)`"

_BUILTINS: Mapping[str, str] = {
    "print": "every named value is recorded and shown: give it a name",
    "bool": "compare it: `x != 0`, or cast a tensor: `x.to(bool)`",
    "list": "write `[a, b]`",
    "tuple": "write `(a, b)`",
    "zip": "write the lines out, or a loop over an index",
    "enumerate": "write `for i in range(len(x)):`",
    "map": "write a tensor operation, or a loop",
    "no_grad": "write `x.detach()` where no gradient shall flow",
    "torch.no_grad": "write `x.detach()` where no gradient shall flow",
    "autocast": "write `x.to(bfloat16)` where lower precision is wanted",
    "rearrange": _REARRANGE,
    "backward": "write a `backward` step",
    "Parameter": "declare it under `parameters:`",
    "nn.Parameter": "declare it under `parameters:`",
    "torch.nn.Parameter": "declare it under `parameters:`",
    "super": "nothing of Python itself can be reached; `steprun ops` lists what can",
    "eval": "nothing of Python itself can be reached; `steprun ops` lists what can",
    "exec": "nothing of Python itself can be reached; `steprun ops` lists what can",
    "open": "nothing of Python itself can be reached; `steprun ops` lists what can",
    "getattr": "nothing of Python itself can be reached; `steprun ops` lists what can",
    "type": "the dtype of a tensor is `x.dtype`",
    "isinstance": "the dtype of a tensor is `x.dtype`",
}
"""Functions of Python and PyTorch, and what to do instead."""

NAMES: Mapping[str, str] = {
    "true": "write `True`",
    "false": "write `False`",
    "null": "write `None`",
    "none": "write `None`",
    "self": "parameters and constants go by their own names: `w`, not `self.w`",
    **dict.fromkeys(PREFIXES, "it is the first part of an operation's name: `linalg.det(x)`"),
    "einops": _REARRANGE,
    **dict.fromkeys(FOREIGN, "operations are torch's, and need no prefix: `sin(x)`"),
}
"""What to do about names that people bring from elsewhere."""


def suggestion(name: str) -> str:
    """One thing to do about an operation that does not exist."""
    prefix, _, bare = name.rpartition(".")
    prefix = prefix.removeprefix("torch.").removeprefix("torch").removeprefix("nn.functional")
    pool: set[str] = {*bare_names(), *FUNCTIONS, "grad"}
    if prefix and prefix != "F":
        pool = {f"{prefix}.{found}" for found in _names_below(prefix)}
        bare = f"{prefix}.{bare}"
    found = nearest(bare, pool)
    return f"did you mean `{found}`?" if found else "`steprun ops` lists every operation"


def other_words(name: str) -> str | None:
    """What to do instead of calling `name`, where it is something of Python or PyTorch; None where it is not."""
    return _BUILTINS.get(name) or module_hint(name)


def module_hint(name: str) -> str | None:
    """The function that computes what a module of `torch.nn` does: `nn.ReLU` is `relu`; None where none does."""
    prefix, _, bare = name.rpartition(".")
    if prefix not in ("nn", "torch.nn", "") or not bare[:1].isupper():
        return None
    plain = bare.lower()
    for wanted in (plain, plain.removesuffix("loss")):
        for found in sorted(bare_names()):
            if found.replace("_", "") == wanted:
                return f"modules hold parameters of their own: declare those, and write `{found}(…)`"
    return "modules hold parameters of their own: declare those, and write the computation"


@functools.cache
def _names_below(prefix: str) -> frozenset[str]:
    return frozenset(name.removeprefix(prefix + ".") for name in operations() if name.startswith(prefix + "."))


def cast_hint(name: str) -> str:
    return (
        f"cast a tensor with `x.to({name})`"
        if name in ("int", "float", "bool", "complex")
        else "use a tensor operation"
    )
