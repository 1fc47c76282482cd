"""SIGINT and SIGTERM: the first asks the run to stop, the second stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.cli.input.interruption import SIGNALS, Interruption

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are Unix's")


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_first_signal_asks_and_the_second_interrupts(
    first: signal.Signals, second: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption() as stop:
        assert not stop()
        signal.raise_signal(first)
        assert stop()
        assert capsys.readouterr().err == "stopping after this step; once more stops at once\n"
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            signal.raise_signal(second)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_planning_is_interrupted_by_the_first_signal() -> None:
    with Interruption(at_once=True), pytest.raises(KeyboardInterrupt, match=r"^$"):
        signal.raise_signal(signal.SIGINT)


ENDLESS = """\
import signal, time
from runner.cli.input.interruption import Interruption
with Interruption("; go on", patience=0.05, ending=lambda: print("ended", flush=True)):
    signal.raise_signal(signal.SIGINT)
    while True:  # as an operation that does not return
        time.sleep(1)
"""


def test_a_step_that_does_not_end_is_not_waited_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDLESS],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
        check=False,
    )
    assert done.returncode == 130
    assert done.stdout == "ended\n"
    assert done.stderr == (
        "stopping after this step; once more stops at once\nthis step takes too long: interrupted inside it; go on\n"
    )
