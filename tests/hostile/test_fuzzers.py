"""Some seconds of each fuzzer, which a person may run for hours; and what the fuzzers themselves notice."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
import torch

from tests.hostile import configs, operations
from tests.hostile.calls import any_call, names
from tests.hostile.children import tried

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads memory from /proc"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning"),
]

SECONDS = 8

SEED = "the tests"
"""The cases are the same in each run, so a change that has no fault passes. The commands try others."""


def _attempt(case: int) -> str | None:
    if case == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if case == 3:
        raise KeyError("x")
    if case == 4:
        while True:
            time.thread_time()
    if case == 5:
        signal.pause()
    return "wrong" if case == 6 else None


@pytest.mark.slow
def test_a_crash_a_hang_and_an_exception_are_found_with_their_cases() -> None:
    found = list(tried(_attempt, 0, 9, seconds=1.0, idle=3.0))
    assert [(finding.case, finding.what) for finding in found] == [
        (2, "crash: SIGSEGV"),
        (3, "escaped: KeyError: 'x'"),
        (4, "hang"),
        (5, "hang: waits"),
        (6, "wrong"),
    ]


def test_a_case_is_the_same_each_time() -> None:
    torch.manual_seed(0)
    one = any_call("seed 7", "torch.lcm")
    torch.manual_seed(1)
    assert str(any_call("seed 7", "torch.lcm")) == str(one)
    assert configs.any_text("seed 7") == configs.any_text("seed 7")


@pytest.mark.slow
def test_no_operation_crashes_hangs_or_raises_what_is_no_fault() -> None:
    found = list(operations.findings(SEED, SECONDS, names()))
    assert not [f"{finding.what}: {call}" for finding, call in found if finding.what]


@pytest.mark.slow
def test_no_config_crashes_hangs_grows_or_raises_what_is_no_error() -> None:
    configs.warm()
    found = list(configs.findings(SEED, SECONDS / 2))
    assert not [f"{finding.what}:\n{text}" for finding, text in found if finding.what]
