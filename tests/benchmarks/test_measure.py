"""How benchmarks are measured and reported; nothing is timed here."""

from __future__ import annotations

import pytest

from benchmarks.measure import Result, Workload, measured, table
from benchmarks.peers import Peer, missing
from benchmarks.profile import PROFILED, Part, operations, report


def workload(**changes: object) -> Workload:
    fields = {"name": "W", "what": "ours", "against": "theirs", "ours": int, "theirs": int, "reach": 0.75, **changes}
    return Workload(**fields)  # type: ignore[arg-type]


def test_a_ratio_is_that_of_the_medians() -> None:
    result = Result(workload(), ours=(9.0, 1.0, 3.0), theirs=(4.0, 100.0, 1.0))
    assert result.value == pytest.approx(0.75)
    assert result.reached


def test_a_difference_is_in_seconds() -> None:
    result = Result(workload(measure="difference", reach=0.1), ours=(1.0, 1.3, 1.2), theirs=(1.0, 1.0, 1.0))
    assert result.value == pytest.approx(0.2)
    assert not result.reached


def test_each_step_is_reported_in_milliseconds() -> None:
    result = Result(workload(measure="each", reach=10.0, steps=200), ours=(2.0, 1.0, 3.0), theirs=(1.0,))
    assert result.value == pytest.approx(10.0)
    assert result.reached
    assert "10.00 ms" in list(table([result]))[-1]


def test_both_sides_run_once_unmeasured_and_then_alternate() -> None:
    calls: list[str] = []
    sides = workload(ours=lambda: calls.append("ours"), theirs=lambda: calls.append("theirs"))
    result = measured(sides, repeats=2)
    assert calls == ["theirs", "ours", "theirs", "ours", "ours", "theirs"]
    assert (len(result.ours), len(result.theirs)) == (2, 2)


def test_the_table_tells_times_a_step_ratio_and_reach() -> None:
    lines = list(table([Result(workload(steps=1000), ours=(0.05,), theirs=(0.1,))]))
    assert [cell.strip() for cell in lines[-1].strip("|").split("|")] == [
        "W",
        "ours",
        "50.0 µs a step",
        "theirs",
        "100.0 µs a step",
        "0.50",
        "≤ 0.75",
        "reached",
    ]


def test_what_both_sides_compute_is_verified_first() -> None:
    def verify() -> None:
        raise AssertionError("the losses of both sides differ")

    with pytest.raises(AssertionError, match="the losses of both sides differ"):
        measured(workload(verify=verify, ours=pytest.fail, theirs=pytest.fail), repeats=1)


def test_memory_is_what_each_side_says_once() -> None:
    result = measured(
        workload(measure="memory", reach=1.1, ours=lambda: 300 << 20, theirs=lambda: 200 << 20), repeats=7
    )
    assert (result.ours, result.theirs) == ((float(300 << 20),), (float(200 << 20),))
    lines = list(table([result]))[-1]
    assert [cell.strip() for cell in lines.strip("|").split("|")][2:] == [
        "300 MiB",
        "theirs",
        "200 MiB",
        "1.50",
        "≤ 1.10",
        "not reached",
    ]


def test_a_peer_has_nothing_to_reach() -> None:
    lines = list(table([Result(workload(steps=1000, reach=None), ours=(0.05,), theirs=(0.1,))]))
    assert [cell.strip() for cell in lines[-1].strip("|").split("|")][-3:] == ["0.50", "", "peer"]


def test_a_missing_peer_is_reported_with_what_to_install() -> None:
    peers = [Peer("Other", "no_such_module_anywhere", tuple, float), Peer("Python", "json", tuple, float)]
    assert list(missing(peers)) == ["Other is not installed: pip install 'steprun[benchmarks]'"]


def test_a_profile_tells_each_part_its_share_the_limit_and_the_operations() -> None:
    parts = [Part("forward", 20e-6), Part("backward", 60e-6)]
    assert list(report("W", parts, 40e-6, {"mul.Tensor": 3, "add.Tensor": 1})) == [
        "| W                   | µs a step | share |",
        "| ------------------- | --------: | ----: |",
        "| forward             |      20.0 |   25% |",
        "| backward            |      60.0 |   75% |",
        "| whole               |      80.0 |  100% |",
        "",
        "The limit, forward and backward by hand: 40.0 µs a step; the whole step is 2.00 of it.",
        "4 operations of torch a step: 3 mul.Tensor, add.Tensor.",
    ]


def test_the_operations_of_one_step_are_counted() -> None:
    counted = operations(PROFILED["W1"])
    assert counted["mul.Tensor"] == 6  # three products, and the gradient of each
    assert counted["add.Tensor"] == 2
    assert counted["_foreach_add.List"] == 1  # the update of all three


def test_a_side_that_does_a_part_of_the_work_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measure._seconds", lambda work: (3.0, 0.0))
    result = measured(workload(share=0.1), repeats=1)
    assert (result.ours, result.theirs) == ((3.0,), (pytest.approx(30.0),))
