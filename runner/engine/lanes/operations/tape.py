"""Records the operations of a computation on the memory of all lanes, and runs them again without choosing them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from runner.engine.lanes.operations.tensor import Handler, LaneTensor

LONGEST = 4096
"""The most operations of a recording; compiling the code of a longer one takes longer than choosing again."""

_NAME = re.compile(r"v\d+")

Replay = Callable[[Sequence[Tensor]], tuple[Any, ...]]
"""Takes the inputs `(lanes, *s)` of a recording, and returns its outputs."""


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation on plain tensors, in order.

    A tensor that is neither an input nor a result is a constant: the recording uses that very tensor.

    Args:
        inputs: the memory of the inputs.
        draw: computes an operation that draws random numbers, for each lane; the recording calls it again.
    """

    def __init__(self, inputs: Sequence[Tensor], draw: Handler) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._draw = draw
        self._inputs = [f"v{place}" for place in range(len(inputs))]
        self._known = {id(tensor): name for tensor, name in zip(inputs, self._inputs, strict=True)}
        self._held: list[Any] = list(inputs)  # an id is free again once its tensor is
        self._fixed: dict[str, Any] = {}
        self._lines: list[str] = []
        self.complete = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler, which takes a second, to keep it away from this class."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and kwargs.get("generator") is None:
            with _disable_current_modes():
                found = self._draw(func, args, kwargs)
            self._note(self._draw, (func, args, dict(kwargs)), {}, found)
            return found
        if any(issubclass(kind, LaneTensor) for kind in types):
            assert LaneTensor.handler is not None
            with _disable_current_modes(), self:  # the handler computes with plain tensors
                return LaneTensor.handler(func, args, kwargs)
        found = func(*args, **kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.complete = False
        if isinstance(found, LaneTensor):  # of a mode that a random operation needs
            self._note(_for_each(func, len(found.lanes)), args, kwargs, found)
        else:
            self._note(func._op, args, kwargs, found)
        return found

    def function(self, outputs: Sequence[Any]) -> Replay | None:
        """The recording as a function; None if it is too long, or if something cannot be recorded.

        Args:
            outputs: what it returns: tensors, tensors of lanes, and other values, which do not change.
        """
        if not self.complete:
            return None
        returned = [self._of(each) for each in outputs]
        lines = [*self._lines, f"return ({''.join(f'{each}, ' for each in returned)})"]
        text = f"def replay({''.join(f'{name}, ' for name in self._inputs)}):\n"
        text += "".join(f"    {line}\n" for line in _freeing(lines))
        names = {**self._fixed, "lanes": LaneTensor}
        exec(compile(text, "<steprun lanes>", "exec"), names)  # contains only names from above
        replay: Any = names["replay"]

        def run(inputs: Sequence[Tensor]) -> tuple[Any, ...]:
            with torch._C._AutoDispatchBelowAutograd(), _without_modes():
                made: tuple[Any, ...] = replay(*inputs)
            return made

        return run

    def made(self, tensor: Tensor) -> bool:
        """Whether a tensor is the result of a recorded operation."""
        return self._known.get(id(tensor), self._inputs[0] if self._inputs else "") not in self._inputs

    def _note(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], found: Any) -> None:
        if len(self._lines) >= LONGEST:
            self.complete = False
        if not self.complete:
            return
        given = [self._of(value) for value in args]
        given += [f"{name}={self._of(value)}" for name, value in kwargs.items()]
        call = f"{self._constant(operation)}({', '.join(given)})"
        if isinstance(found, LaneTensor):
            self._lines.append(f"{self._targets(found.lanes)} = {call}.lanes")
        elif isinstance(found, list | tuple) and any(isinstance(each, LaneTensor) for each in found):
            parts = [each.lanes if isinstance(each, LaneTensor) else each for each in found]
            self._lines.append(f"{self._targets(parts)} = [getattr(each, 'lanes', each) for each in {call}]")
        else:
            self._lines.append(f"{self._targets(found)} = {call}")

    def _targets(self, found: Any) -> str:
        if isinstance(found, Tensor):
            if id(found) not in self._known:
                self._known[id(found)] = f"v{len(self._held)}"
                self._held.append(found)
            return self._known[id(found)]
        if isinstance(found, list | tuple):
            return f"({''.join(f'{self._targets(each)}, ' for each in found)})"
        return "_"

    def _of(self, value: Any) -> str:
        """A value in the code."""
        if isinstance(value, LaneTensor):
            return f"lanes({self._of(value.lanes)})"
        if isinstance(value, Tensor):
            known = self._known.get(id(value))
            return self._constant(value) if known is None else known
        if isinstance(value, list | tuple):
            items = "".join(f"{self._of(each)}, " for each in value)
            return f"[{items}]" if isinstance(value, list) else f"({items})"
        if isinstance(value, dict):
            return f"{{{''.join(f'{name!r}: {self._of(each)}, ' for name, each in value.items())}}}"
        if value is None or type(value) in (bool, int):
            return repr(value)
        return self._constant(value)

    def _constant(self, value: Any) -> str:
        name = f"c{id(value)}"
        self._fixed[name] = value  # which also keeps its id
        return name


def _for_each(operation: Any, lanes: int) -> Callable[..., LaneTensor]:
    """An operation that gives a tensor of its own to each lane."""
    return lambda *args, **kwargs: LaneTensor(torch.stack([operation(*args, **kwargs)] * lanes))


def _without_modes() -> AbstractContextManager[object]:
    """The state in which the recorded operations ran: no mode handles them."""
    return _disable_current_modes() if torch._C._len_torch_dispatch_stack() else nullcontext()


def _freeing(lines: Sequence[str]) -> Iterator[str]:
    """The lines of a function, with each result deleted after its last use, so that its memory is used again."""
    last = {name: number for number, line in enumerate(lines) for name in _NAME.findall(line)}
    for number, line in enumerate(lines):
        yield line
        ended = sorted({name for name in _NAME.findall(line) if last[name] == number})
        if ended and number < len(lines) - 1:
            yield f"del {', '.join(ended)}"
