from __future__ import annotations

import math

import torch
from torch import Tensor

from runner.plan.rows.columns import Column
from runner.record.display.changes import Change, Changes
from tests.record.building import rows_of
from tests.tables import over

NAN = float("nan")


def change(before: Tensor | None, now: Tensor | None, *, lasting: bool = True) -> Change:
    """The change of the only column of two rows."""
    first, second = rows_of([Column("w", "weight", torch.float32, None)], [[before], [now]])
    changes = Changes([lasting])
    assert changes.of(first) == [Change(None)]
    return changes.of(second)[0]


@over(
    ("before", "now", "differs", "by"),
    [
        (torch.tensor(100.0), torch.tensor(99.9), True, "-0.1"),
        (torch.tensor([100.0]), torch.tensor([99.9]), True, "-0.1"),
        (torch.tensor(0.0), torch.tensor(1234567.0), True, "+1.235e+06"),
        (torch.tensor(1), torch.tensor(2**62), True, "+4,611,686,018,427,387,903"),
        (torch.tensor(5.0), torch.tensor(5.0), False, ""),
        (torch.tensor(0.0), torch.tensor(-0.0), True, ""),  # the printed texts differ
        (torch.tensor(NAN), torch.tensor(NAN), False, ""),
        (torch.tensor(1.0), torch.tensor(NAN), True, ""),
        (torch.tensor(1.0), torch.tensor(math.inf), True, ""),
        (torch.tensor(-1e308, dtype=torch.float64), torch.tensor(1e308, dtype=torch.float64), True, ""),
        (torch.tensor(1.0, dtype=torch.bfloat16), torch.tensor(1.5, dtype=torch.bfloat16), True, "+0.5"),
        (torch.tensor(1.0).to(torch.float8_e4m3fn), torch.tensor(2.0).to(torch.float8_e4m3fn), True, "+1"),
        (torch.tensor(False), torch.tensor(True), True, ""),
        (torch.tensor(1j), torch.tensor(2j), True, ""),
        (torch.tensor([1j, 2j]).conj(), torch.tensor([1j, 2j]).conj().resolve_conj(), False, ""),
        (torch.ones(3), torch.ones(3), False, ""),
        (torch.ones(3), torch.tensor([1.0, 1.0, 2.0]), True, ""),
        (torch.ones(3), torch.ones(4), True, ""),
        (torch.ones(0), torch.ones(0), False, ""),
        (None, None, False, ""),
        (None, torch.tensor(1.0), True, ""),
        (torch.tensor(1.0), None, True, ""),  # zero_grad
    ],
)
def test_what_counts_as_a_change(before: Tensor | None, now: Tensor | None, differs: bool, by: str) -> None:
    assert change(before, now) == Change(differs, by)


def test_a_value_that_a_step_does_not_compute_is_compared_with_the_last_one() -> None:
    values = [[torch.tensor(5000.0)], [None], [torch.tensor(4995.0)]]
    rows = rows_of([Column("f", "value", torch.float32, ())], values)
    changes = Changes([False])
    assert [changes.of(row)[0] for row in rows] == [Change(None), Change(False), Change(True, "-5")]


def test_each_row_is_compared_with_the_one_before_and_not_with_the_first() -> None:
    values = [[torch.tensor(number)] for number in (1.0, 3.0, 3.0, 1.0)]
    changes = Changes([True])
    found = [changes.of(row)[0] for row in rows_of([Column("w", "weight", torch.float32, ())], values)]
    assert found == [Change(None), Change(True, "+2"), Change(False), Change(True, "-2")]
