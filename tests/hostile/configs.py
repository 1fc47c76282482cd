"""A fuzzer of configs: texts near those of the gallery are validated and run, in processes that may end.

    python -m tests.hostile.configs --minutes 60

prints each text on which steprun crashes, takes longer than five seconds, grows by more than 500 MiB, or raises what is
no error of its own; then it ends with 1.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch

import runner
from runner.errors import SteprunError
from runner.plan.compiler import PlanLimits, compile
from runner.plan.memory import limited_data
from tests.hostile.children import Finding, tried
from tests.hostile.memory import forget_peak, peak
from tests.hostile.texts import CONFIGS, any_text

MEMORY = 512 << 20
GROWTH = 500  # MiB
SECONDS = 5
ROWS = 20


def attempt(text: str) -> str | None:
    """Plan a config and run some of its rows; gives in words what it takes that it may not."""
    forget_peak()
    before = peak()
    try:
        config = runner.loads(text, base=CONFIGS)
        limits = PlanLimits(memory=MEMORY, seconds=3)
        began = time.thread_time()
        plan = compile(config, limits=limits)
        planned = time.thread_time() - began
        if planned > SECONDS:
            return f"slow: planned in {planned:.1f} s"
        with limited_data(plan.memory):
            for _ in itertools.islice(runner.execute(plan), ROWS):
                if time.thread_time() - began > SECONDS / 2:
                    break
    except SteprunError:
        pass
    grown = peak() - before
    return f"memory: grew by {grown:.0f} MiB" if grown > GROWTH else None


def warm() -> None:
    """Import once, before processes are forked, what planning small and large configs needs."""
    for shape in ("[1]", "[20000000]"):
        declared = f"parameters: {{x: {{shape: {shape}, init: ones}}}}"
        runner.compile(runner.loads(f"{{{declared}, expression: x.sum(), log: {{tensors: none}}}}"))


def findings(seed: str, seconds: float, first: int = 0, most: int = 1 << 62) -> Iterator[tuple[Finding, str]]:
    """What goes wrong until the time is over; yields the number of cases now and then as a finding without words."""
    began, case = time.monotonic(), first

    def try_case(number: int) -> str | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return attempt(any_text(f"{seed} {number}"))

    while time.monotonic() - began < seconds and case < most:
        last = min(case + 500, most)
        for found in tried(try_case, case, last, seconds=SECONDS + 1):
            yield found, any_text(f"{seed} {found.case}")
        case = last
        yield Finding(case, ""), ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", default=str(time.time_ns()))
    parser.add_argument("--first", type=int, default=0, help="the first case")
    parser.add_argument("--last", type=int, default=1 << 62, help="the case to stop before")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warm()
    print(f"seed {given.seed}", flush=True)
    bad, tries = 0, given.first
    with suppress(KeyboardInterrupt):
        for finding, text in findings(given.seed, given.minutes * 60, given.first, given.last):
            tries = finding.case
            if finding.what:
                bad += 1
                print(f"case {finding.case}: {finding.what}\n{text}", flush=True)
    print(f"{tries - given.first:,} configs, {bad} findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
