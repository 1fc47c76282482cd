"""Regions: many iterations of a step as one call of compiled code."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._higher_order_ops.scan import scan

from runner.engine.compiled.scalars import ScalarsOnce
from runner.engine.compiled.training import Step, Tensors

Region = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensors]]
"""`(carry, each, fixed)` to the carry after the last iteration, and the outputs stacked: `(iterations, *shape)`.

`each` is stacked the same; the length of the first axis is the number of iterations.
"""

OPTIONS: Mapping[str, str | int | bool | Callable[..., object]] = {
    "post_grad_custom_post_pass": ScalarsOnce(),
    "cpp_wrapper": True,
    "compile_threads": 1,
    "fallback_random": True,
    "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
}
"""What inductor is given: no Python around its kernels, no processes of its own, torch's own random numbers, and no
guards, for which `compiled_region` says why."""


def compiled_region(step: Step, *, several: bool) -> Region:
    """A step compiled, alone or within a loop over any number of iterations.

    The loop is part of the compiled code, which so neither grows with the number of iterations nor is compiled anew
    for another. It is called for tensors of one set of shapes and dtypes: nothing checks that at each call.
    """
    if several:

        def region(carry: Tensors, each: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
            def body(before: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
                return step(before, given, fixed)

            after, stacked = scan(body, carry, each)
            return list(after), list(stacked)

    else:

        def region(carry: Tensors, each: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
            after, outputs = step(carry, [value[0] for value in each], fixed)
            return after, [value.unsqueeze(0) for value in outputs]

    compiled: Region = torch.compile(_with_own_code(region), fullgraph=True, options=dict(OPTIONS))
    return compiled


def mark_length(each: Tensors) -> None:
    """Say of example tensors that their first axis has any length."""
    for value in each:
        torch._dynamo.mark_dynamic(value, 0)


def _with_own_code(function: Region) -> Region:
    """The function with a code object of its own: torch keeps what it compiled for each, and two would be mixed up."""
    made: Any = types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    compiled: Region = made
    return compiled
