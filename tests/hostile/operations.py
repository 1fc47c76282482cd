"""A fuzzer of operations: every one of the catalogue is called with odd arguments, in processes that may end.

    python -m tests.hostile.operations --minutes 60

prints each call that crashes the process, hangs, or raises what is no fault of an expression; then it ends with 1.
Ctrl-C ends it early.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from runner.language.graph.computation import extract, loggable
from runner.language.inference.inference import Bounds, Inference, TooLarge
from runner.language.lowering.lower import lower_statements
from runner.language.lowering.scope import Scope
from runner.language.text.faults import LanguageError
from tests.hostile.calls import Call, UnsayableError, any_call, names, prepare
from tests.hostile.children import Finding, tried

ROOM = 192 << 20
RUN_FAULTS = (RuntimeError, ValueError, IndexError, TypeError, ArithmeticError, MemoryError)
"""What a step may raise: the engine turns each into a fault at its place."""


def attempt(call: Call) -> str | None:
    """Plan a call, compute it and differentiate it; gives what it raises that is no fault."""
    leaves = {name: _leaf(tensor) for name, tensor in call.tensors.items()}
    scope = Scope(tensors=leaves)
    try:
        lowered = lower_statements(f"y = {call.text}", scope, Inference(Bounds(bytes=ROOM), gradients=False))
    except (LanguageError, TooLarge):
        return None
    if not loggable(lowered.values["y"]):
        return None
    computation = extract(lowered, ["y"])
    try:
        (value,) = computation.function(None, *(leaves[name] for name in computation.inputs))
        if isinstance(value, Tensor) and value.requires_grad:
            (value.real if value.is_complex() else value).sum().backward()
    except RUN_FAULTS:
        return None
    return None


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.requires_grad_() if tensor.is_floating_point() or tensor.is_complex() else tensor


def findings(
    seed: str, seconds: float, wanted: Sequence[str], first: int = 0, most: int = 1 << 62
) -> Iterator[tuple[Finding, str]]:
    """What goes wrong until the time is over; yields the number of cases now and then as a finding without words."""
    for name in wanted:  # once, before processes are forked
        prepare(name)
    began, case = time.monotonic(), first

    def try_case(number: int) -> str | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                call = any_call(f"{seed} {number}", wanted[number % len(wanted)])
            except (UnsayableError, RuntimeError, TypeError, ValueError):
                return None
            return attempt(call)

    step = max(2_000, 10 * len(wanted))
    while time.monotonic() - began < seconds and case < most:
        for found in tried(try_case, case, min(case + step, most), room=ROOM):
            yield found, shown(seed, found.case, wanted)
        case = min(case + step, most)
        yield Finding(case, ""), ""


def shown(seed: str, case: int, wanted: Sequence[str]) -> str:
    """The call of a case as text."""
    try:
        return str(any_call(f"{seed} {case}", wanted[case % len(wanted)]))
    except Exception as error:
        return f"{wanted[case % len(wanted)]}: {error!r}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", default=str(time.time_ns()))
    parser.add_argument("--only", default="", help="operations whose names hold this")
    parser.add_argument("--first", type=int, default=0, help="the first case")
    parser.add_argument("--last", type=int, default=1 << 62, help="the case to stop before")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    wanted = [name for name in names() if given.only in name]
    print(f"seed {given.seed}, {len(wanted)} operations", flush=True)
    bad, tries = 0, given.first
    with suppress(KeyboardInterrupt):
        for finding, call in findings(given.seed, given.minutes * 60, wanted, given.first, given.last):
            tries = finding.case
            if finding.what:
                bad += 1
                print(f"case {finding.case}: {finding.what}\n{call}", flush=True)
    print(f"{tries - given.first:,} calls, {bad} findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
