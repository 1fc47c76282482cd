"""A computation recorded once and replayed: `torch.cuda.CUDAGraph`, and what the engine needs of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

from runner.engine.faults import Uncapturable
from runner.language.lowering.diagnosis import torch_message

T = TypeVar("T")


class Capture(Protocol):
    """A way to record computations on one device."""

    def warm(self, run: Callable[[], T]) -> T:
        """Call what will be recorded later, so that libraries have made what they need."""
        ...

    def record(self, function: Callable[[], object]) -> Callable[[], object]:
        """Record what `function` does to tensors; gives what does it again, at the same addresses.

        Python runs once, here. What `function` computes is there once the replay has been called, not before.

        Raises:
            Uncapturable: it does what a recording cannot hold.
        """
        ...


class CudaGraphs:
    """CUDA graphs, recorded on a stream of their own, replayed on the current one.

    Source: PyTorch, "CUDA semantics", section "CUDA Graphs": warm-up and recording on a side stream that waits for the
    current one; the device's default generator belongs to every graph, and is read when it is replayed.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def warm(self, run: Callable[[], T]) -> T:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = run()
        current.wait_stream(self._stream)
        return result

    def record(self, function: Callable[[], object]) -> Callable[[], object]:
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                torch.cuda.device(self._device),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),  # a writer may go on
            ):
                function()
        except RuntimeError as error:
            message = f"a CUDA graph cannot hold this step: {torch_message(error)}"
            raise Uncapturable(message).with_traceback(error.__traceback__) from error
        return graph.replay
