"""The random generators of torch that operations on a device use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch


def generators(device: str) -> tuple[torch.Generator, ...]:
    """Returns the global generators that operations on `device` may use: the CPU's, and the device's own."""
    kind, _, index = device.partition(":")
    return torch.default_generator, *_OF_DEVICE[kind](int(index or 0))


def _of_cuda(index: int) -> tuple[torch.Generator, ...]:
    torch.cuda.init()  # type: ignore[no-untyped-call]  # creates the generators
    return (torch.cuda.default_generators[index],)


_OF_DEVICE: Mapping[str, Callable[[int], tuple[torch.Generator, ...]]] = {
    "cpu": lambda index: (),
    "cuda": _of_cuda,
    "mps": lambda index: (torch.mps._get_default_mps_generator(),),
}


def manual_seed(seed: int, device: str) -> None:
    """Seeds the generators that operations on `device` use."""
    for generator in generators(device):
        generator.manual_seed(seed)


@contextmanager
def left_alone(device: str, draws: bool = True) -> Iterator[None]:
    """Restores the global generators of a device on exit; does nothing unless the body `draws` from them."""
    before = [(generator, generator.get_state()) for generator in generators(device)] if draws else []
    try:
        yield
    finally:
        for generator, state in before:
            generator.set_state(state)
