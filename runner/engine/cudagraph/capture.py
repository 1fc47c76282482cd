"""Records a computation once and replays it: `torch.cuda.CUDAGraph`, and the interface that the engine needs."""

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
        """Runs a computation before it is recorded, so that libraries initialize."""
        ...

    def record(self, function: Callable[[], object]) -> Callable[[], object]:
        """Records the tensor operations of `function`. Returns a function that replays them at the same addresses.

        Python code runs only once, here. The results of `function` are valid only after the replay has been called.

        Raises:
            Uncapturable: `function` does something that cannot be recorded.
        """
        ...


class CudaGraphs:
    """Records CUDA graphs on a side stream and replays them on the current one.

    Source: PyTorch, "CUDA semantics", section "CUDA Graphs". Warm-up and recording run on a side stream that waits for
    the current one. The device's default generator is registered with every graph, and is read at replay.
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
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),  # writers use CUDA too
            ):
                function()
        except RuntimeError as error:
            message = f"a CUDA graph cannot hold this step: {torch_message(error)}"
            raise Uncapturable(message).with_traceback(error.__traceback__) from error
        return graph.replay
