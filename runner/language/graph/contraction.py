"""`einsum` that computes the same bits whatever is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def einsum(*args: Any) -> Tensor:
    """`torch.einsum` as it is where opt_einsum is not installed: it contracts operands from left to right.

    Where it is, as with JAX, torch takes the order of opt_einsum for three or more operands, and so other bits.
    `torch.backends.opt_einsum.enabled` would change it for the whole process.

    Args:
        args: as of `torch.einsum`: an equation and its operands, or each operand with the numbers of its dimensions.
    Raises:
        RuntimeError: the operands do not fit; in torch's words.
    """
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = list(operands[0])
    if isinstance(equation, Tensor):
        numbers: Sequence[Sequence[Any]] = args[1::2]
        equation = ",".join(map(_letters, numbers))
        operands = list(args[::2])
        if len(args) % 2:
            equation += f"->{_letters(operands.pop())}"
    if len(operands) <= 2:
        found: Tensor = torch.einsum(*args)
        return found
    return torch._VF.einsum(equation, operands)  # type: ignore[attr-defined,no-any-return]


def _letters(numbers: Sequence[Any]) -> str:
    """Returns the numbers of dimensions as an equation has them: A to Z for 0 to 25, a to z for 26 to 51.

    Raises:
        ValueError: a number is outside of these; in torch's words.
    """
    return "".join("..." if number is Ellipsis else _letter(number) for number in numbers)


def _letter(number: int) -> str:
    if not 0 <= number < 52:
        raise ValueError("einsum(): subscript in subscript list is not within the valid range [0, 52)")
    return chr(ord("A") + number) if number < 26 else chr(ord("a") + number - 26)
