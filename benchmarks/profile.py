"""Profiles a training step: runs with more and more parts of the step, and what each part adds."""

from __future__ import annotations

import collections
import functools
import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

import runner
from benchmarks import digits, linear
from benchmarks.training import DATA_FOLDER

LIMIT = "forward and backward by hand"
NOTHING = ("log.tensors=none",)


@dataclass(frozen=True, slots=True)
class Profiled:
    """A workload to profile."""

    config: Path
    steps: int
    limit: Callable[[], object]  # forward and backward of all steps, written by hand, and nothing else
    drawing: str = ""  # the step that draws a batch, as `train` does first


@dataclass(frozen=True, slots=True)
class Part:
    """The cost of one part of a step: seconds per step with it, minus those without it."""

    name: str
    seconds: float


PROFILED: Mapping[str, Profiled] = {
    "W1": Profiled(linear.CONFIG, linear.STEPS, linear.forward_and_backward),
    "W3": Profiled(digits.CONFIG, digits.STEPS, digits.forward_and_backward, "{next: train}"),
}


def profile(profiled: Profiled, repeats: int) -> tuple[list[Part], float]:
    """Returns the parts of a step in the order in which they are added, and the limit of a step in seconds.

    The sum of the parts is the whole recorded step. Each run counts with its minimum: disturbances only add time, and
    would show in differences of medians.
    """
    drawn = [profiled.drawing] if profiled.drawing else []
    runs: dict[str, Callable[[], object]] = {LIMIT: profiled.limit}
    runs["batch and forward" if drawn else "forward"] = _without_record(profiled, [*drawn, "forward"])
    runs["backward"] = _without_record(profiled, [*drawn, "backward"])
    runs["zeroing and update"] = _without_record(profiled, ["train"])
    runs["row"] = _without_record(profiled, ["train"], [])
    runs["recording"] = functools.partial(_recorded, profiled)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            taken = _seconds(run)
            if repeat:  # the first run is a warm-up
                seconds[name].append(taken)
    limit = min(seconds.pop(LIMIT)) / profiled.steps
    parts, before = [], 0.0
    for name, found in seconds.items():
        taken = min(found) / profiled.steps
        parts.append(Part(name, taken - before))
        before = taken
    return parts, limit


def operations(profiled: Profiled) -> dict[str, int]:
    """Returns how often one training step calls each operation of torch, gradients and updates included."""
    counts = [_counted(profiled, steps) for steps in (2, 3)]
    return {name: count - counts[0][name] for name, count in counts[1].most_common() if count > counts[0][name]}


def report(name: str, parts: Sequence[Part], limit: float, called: Mapping[str, int]) -> Iterator[str]:
    """Yields the parts as a Markdown table, then the limit and the calls."""
    whole = sum(part.seconds for part in parts)
    yield f"| {name:<19} | µs a step | share |"
    yield f"| {'-' * 19} | --------: | ----: |"
    for part in (*parts, Part("whole", whole)):
        yield f"| {part.name:<19} | {part.seconds * 1e6:>9.1f} | {part.seconds / whole:>5.0%} |"
    yield ""
    yield f"The limit, {LIMIT}: {limit * 1e6:.1f} µs a step; the whole step is {whole / limit:.2f} of it."
    listed = ", ".join(f"{count} {operation}" if count > 1 else operation for operation, count in called.items())
    yield f"{sum(called.values())} operations of torch a step: {listed}."


def _plan(profiled: Profiled, program: Sequence[str], log: Sequence[str], steps: int) -> runner.Plan:
    repeated = f"steps=[{{repeat: {{times: {steps}, steps: [{', '.join(program)}]}}}}]"
    config = runner.load(profiled.config, [repeated, *log], allowed_folders=[DATA_FOLDER])
    return runner.compile(config, allowed=[DATA_FOLDER])


def _without_record(profiled: Profiled, program: Sequence[str], log: Sequence[str] = NOTHING) -> Callable[[], object]:
    plan = _plan(profiled, program, log, profiled.steps)
    return lambda: collections.deque(runner.execute(plan, shared=True), maxlen=0)


def _recorded(profiled: Profiled) -> None:
    overrides = [f"steps={profiled.steps}"]
    with tempfile.TemporaryDirectory() as folder:
        runner.run(profiled.config, overrides, runs_dir=folder, allowed_folders=[DATA_FOLDER])


def _seconds(work: Callable[[], object]) -> float:
    """Returns the CPU seconds of the computing thread: other processes and the writer's thread do not count."""
    gc.collect()
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func).removeprefix("aten.")] += 1
        return func(*args, **(kwargs or {}))


def _counted(profiled: Profiled, steps: int) -> collections.Counter[str]:
    plan = _plan(profiled, ["train"], [], steps)
    with _Counting() as counting:
        collections.deque(runner.execute(plan, shared=True), maxlen=0)
    return counting.counts
