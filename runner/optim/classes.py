"""The classes of `torch.optim`, without the wrappers that import `torch._dynamo`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


@functools.cache
def optimizer_class(class_name: str) -> type[Optimizer]:
    """A class with the same results as `torch.optim`'s `class_name`, bit for bit.

    torch wraps `add_param_group` and `step` for its compiler. On first use, the wrappers import `torch._dynamo`, which
    takes most of a second. The returned subclass calls the wrapped functions, also without gradients. If torch's
    wrappers have another form than expected here, this returns torch's own class.
    """
    original: type[Optimizer] = getattr(torch.optim, class_name)
    add_param_group = getattr(Optimizer.add_param_group, "__wrapped__", None)
    step = inspect.unwrap(original.step)
    if add_param_group is None or original.add_param_group is not Optimizer.add_param_group or step is original.step:
        return original
    methods = {"add_param_group": add_param_group, "step": _without_gradients(step), "__module__": __name__}
    return type(class_name, (original,), methods)


def _without_gradients(inner: Callable[..., Any]) -> Callable[..., Any]:
    def step(self: Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        with torch.no_grad():
            return inner(self, closure)

    step.hooked = True  # type: ignore[attr-defined]  # keeps Optimizer.__init__ from wrapping it for the profiler
    return step
