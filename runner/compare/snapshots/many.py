"""Checks many targets, in this process or in several."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import torch

from runner.compare.snapshots.checking import FINE, Outcome, Request, Target, check


def check_all(
    targets: Sequence[Target], request: Request, *, jobs: int = 1, fail_fast: bool = False
) -> Iterator[Outcome]:
    """The outcome of each target, in order; with `fail_fast`, stops after the first that is not fine.

    Args:
        jobs: number of processes. Each has as many torch threads as this one, because bits depend on them.
    """
    if jobs == 1 or len(targets) < 2:
        with _collecting_what_is_new():
            yield from _until_wrong((check(target, request) for target in targets), fail_fast)
        return
    executor = ProcessPoolExecutor(
        min(jobs, len(targets)),
        mp_context=multiprocessing.get_context("spawn"),  # torch threads do not survive a fork
        initializer=torch.set_num_threads,
        initargs=(torch.get_num_threads(),),
    )
    with executor:
        futures = [executor.submit(check, target, request) for target in targets]
        try:
            yield from _until_wrong((future.result() for future in futures), fail_fast)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _collecting_what_is_new() -> Iterator[None]:
    """Exclude existing objects, mostly torch's modules, from the frequent garbage collections of the block.

    What the caller froze stays frozen.
    """
    enabled, freezing = gc.isenabled(), not gc.get_freeze_count()
    if freezing:
        gc.freeze()
    gc.enable()
    try:
        yield
    finally:
        if freezing:
            gc.unfreeze()
        if not enabled:
            gc.disable()


def _until_wrong(outcomes: Iterator[Outcome], fail_fast: bool) -> Iterator[Outcome]:
    for outcome in outcomes:
        yield outcome
        if fail_fast and outcome.status not in FINE:
            return
