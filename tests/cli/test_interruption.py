"""SIGINT and SIGTERM: the first asks the run to stop, the second stops it."""

from __future__ import annotations

import os
import signal

import pytest

from runner.cli.interruption import SIGNALS, Interruption

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
