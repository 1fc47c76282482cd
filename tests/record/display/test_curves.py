from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import hypothesis.strategies as st
import numpy
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from runner.errors import UsageError
from runner.plan.rows.columns import Column
from runner.record.display.curves import Curve, curves_of, decimated, pieces
from runner.record.display.figure import Axis, Figure
from runner.record.reading import Run
from tests.effort import tried
from tests.record.test_reading import recorded
from tests.tables import over

LOSS = Column("loss", "value", torch.float32, ())
WEIGHT = Column("w", "weight", torch.float32, (2,))
GRADIENT = Column("w.grad", "gradient", torch.float32, (2,))
OF = Column("v", "weight", torch.float32, (3,), "stats")
NORM = Column("v.norm", "weight", torch.float64, (), of=OF)
COMPLEX = Column("z", "value", torch.complex64, ())
FLAG = Column("flag", "value", torch.bool, ())
LIST = Column("found", "value", torch.float32, None)
COLUMNS = (LOSS, WEIGHT, GRADIENT, COMPLEX, FLAG, LIST)


def values(number: int) -> list[Tensor | None]:
    if number == 0:
        return [None, torch.tensor([0.0, 0.0]), None, None, None, None]
    return [
        torch.tensor(1 / number),
        torch.tensor([3.0, 4.0]) * number,
        torch.tensor([0.0, math.nan]),
        torch.tensor(3 + 4j),
        torch.tensor(True),
        torch.full((number,), 2.0),
    ]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return recorded(tmp_path / "run", COLUMNS, [values(number) for number in range(5)])


def curve(values: Sequence[float], name: str = "loss") -> Curve:
    return Curve(name, numpy.arange(len(values), dtype=float), numpy.array(values, dtype=float))


def test_numbers_are_drawn_as_they_are_and_tensors_as_norms(run: Run) -> None:
    found = {each.name: each for each in curves_of(run.columns, run.parts, ["*"])}
    assert list(found) == ["loss", "|w|", "|w.grad|", "|z|", "flag", "|found|"]
    assert found["loss"].rows.tolist() == [1, 2, 3, 4]  # the first row has none
    assert found["loss"].values.tolist() == numpy.float32([1, 1 / 2, 1 / 3, 1 / 4]).tolist()
    assert found["|w|"].values.tolist() == [0, 5, 10, 15, 20]
    assert numpy.isnan(found["|w.grad|"].values).all()
    assert found["|z|"].values.tolist() == [5] * 4
    assert found["flag"].values.tolist() == [1] * 4
    assert found["|found|"].values.tolist() == pytest.approx([2 * math.sqrt(number) for number in range(1, 5)])


def test_without_names_all_single_values_are_drawn(run: Run) -> None:
    assert [each.name for each in curves_of(run.columns, run.parts, [])] == ["loss", "|z|", "flag"]


def test_of_statistics_the_norm_is_drawn_for_the_tensor() -> None:
    mean = Column("v.mean", "weight", torch.float64, (), of=OF)
    assert [each.name for each in curves_of([mean, NORM], [], ["v"])] == ["v.norm"]
    assert [each.name for each in curves_of([mean, NORM], [], ["v.*"])] == ["v.mean", "v.norm"]


@over(
    ("patterns", "message"),
    [
        (["los"], "`los` matches no column\n.*did you mean `loss`"),
        (["loss", "x.*"], "`x\\.\\*` matches no column"),
        (["u"], "the log kept only digests of `u`\n.*stats"),
    ],
)
def test_names_that_match_nothing(patterns: list[str], message: str) -> None:
    of = Column("u", "weight", torch.float32, (3,), "digest")
    digest = Column("u.digest", "weight", torch.uint8, (8,), of=of)
    with pytest.raises(UsageError, match=message):
        curves_of([LOSS, digest], [], patterns)


def test_a_run_without_single_values_asks_for_a_name() -> None:
    with pytest.raises(UsageError, match=r"the run has no value of one number\n.*name a column: w"):
        curves_of([WEIGHT], [], [])


@settings(max_examples=tried(60), deadline=None)
@given(st.lists(st.floats(width=32) | st.sampled_from([math.nan, math.inf, 0.0]), min_size=1, max_size=400))
def test_fewer_points_keep_every_extreme_both_ends_and_a_gap(values: list[float]) -> None:
    whole = curve(values)
    few = decimated(whole, 10)
    assert len(few.rows) <= max(60, 40)
    assert (few.rows[0], few.rows[-1]) == (0, len(values) - 1)
    assert (numpy.diff(few.rows) > 0).all()
    finite = whole.values[numpy.isfinite(whole.values)]
    kept = few.values[numpy.isfinite(few.values)]
    if len(finite):
        assert (kept.min(), kept.max()) == (finite.min(), finite.max())
    assert len(kept) < len(few.values) or len(finite) == len(values)


def test_a_gap_inside_a_stretch_stays_a_gap() -> None:
    values = [float(number) for number in range(1_000)]
    values[503] = math.nan  # not the first value of its stretch
    few = decimated(curve(values), 10)
    assert few.rows[numpy.isnan(few.values)].tolist() == [503]
    assert len(pieces(few, log=False)) == 2


@over(
    ("low", "high"), [(0.3, 7.9), (-7.9, -0.3), (-3.0, 4.0), (0.0, 1e-300), (-1.7e308, 1.7e308), (1e9 + 0.5, 1e9 + 9.5)]
)
def test_ticks_are_round_and_within_the_axis(low: float, high: float) -> None:
    ticks = Axis(low, high, 0.0, 100.0).ticks()
    assert 3 <= len(ticks) <= 7
    assert all(low <= tick <= high * (1 + 1e-9 * (1 if high > 0 else -1)) for tick in ticks)
    steps = numpy.diff(ticks)
    assert steps == pytest.approx(numpy.full(len(steps), steps[0]))
    assert f"{steps[0]:.0e}"[0] in "125"


def test_a_million_rows_become_few_points() -> None:
    rows = numpy.arange(1_000_000)
    values = numpy.sin(rows / 1000.0)
    values[123_456] = 50.0
    few = decimated(Curve("loss", rows.astype(float), values), 160)
    assert len(few.rows) < 1_000
    assert few.values.max() == 50.0


@over(
    ("values", "log", "expected"),
    [
        ([1, 2, 3], False, [[1, 2, 3]]),
        ([1, math.nan, 3], False, [[1], [3]]),
        ([math.inf, 1, 2, -math.inf, math.nan, 5], False, [[1, 2], [5]]),
        ([1, 0, -1, 4], False, [[1, 0, -1, 4]]),
        ([1, 0, -1, 4], True, [[1], [4]]),
        ([math.nan], False, []),
        ([], False, []),
    ],
)
def test_what_cannot_be_drawn_is_a_gap(values: list[float], log: bool, expected: list[list[float]]) -> None:
    assert [piece[1] for piece in pieces(curve(values), log=log)] == expected


def test_a_figure_is_static_and_its_names_are_text(run: Run) -> None:
    hostile = curve([1.0, 2.0, math.nan, 4.0], "<script>&\"'")
    svg = Figure([hostile, curve([1.0])]).svg
    tree = ElementTree.fromstring(svg)
    tags = [element.tag.rpartition("}")[2] for element in tree.iter()]
    assert set(tags) == {"svg", "title", "line", "text", "polyline", "circle"}
    assert tags.count("polyline") == 1  # (0, 1) and (1, 2): the last point stands alone, as does the second curve
    assert tags.count("circle") == 2
    assert "<script>&\"'" in [element.text for element in tree.iter() if element.text]


def places(figure: Figure) -> list[tuple[float, float]]:
    (points,) = re.findall('points="(.*?)"', figure.svg)
    return [(float(x), float(y)) for x, y in (point.split(",") for point in points.split())]


def test_places_in_a_figure_are_proportional_to_numbers() -> None:
    (left, low), (middle, between), (right, high) = places(Figure([curve([0.0, 1.0, 4.0])]))
    assert middle - left == pytest.approx((right - left) / 2)
    assert between - low == pytest.approx((high - low) / 4)
    assert high < low  # larger values are higher


def test_a_logarithmic_scale_is_proportional_to_logarithms() -> None:
    (_, low), (_, middle), (_, high) = places(Figure([curve([0.01, 1.0, 100.0])], log=True))
    assert middle == pytest.approx((low + high) / 2, abs=0.1)


@over(
    "values",
    [
        [5.0],
        [0.0, 0.0],
        [1e308, -1e308],
        [1.7e308, 1.7e308],
        [-1.7e308],
        [1e-320, 2e-320],
        [5e-324, 1e-323],
        [-1e-323, 0.0],
        [3e-308, 2.9e-308],
        [2.0**62, 2.0**62 + 1024],
    ],
)
def test_a_figure_of_odd_numbers_is_drawn(values: list[float]) -> None:
    ElementTree.fromstring(Figure([curve(values)]).svg)
    assert "nan" not in Figure([curve(values)]).svg


def test_a_run_plots_its_columns(run: Run, tmp_path: Path) -> None:
    figure = run.plot("loss", "w", log=True)
    assert repr(figure) == "<Figure of loss, |w|>"
    figure.save(tmp_path / "loss.svg")
    assert (tmp_path / "loss.svg").read_text(encoding="utf-8") == figure._repr_html_() + "\n"


def test_a_run_without_a_number_to_draw_says_why(run: Run) -> None:
    with pytest.raises(UsageError, match=r"`\|w\.grad\|` has no finite value"):
        run.plot("w.grad")
    with pytest.raises(UsageError, match="`flag` has no value in any row"):
        Run(recorded(run.path.parent / "one", COLUMNS, [values(0)]).path).plot("flag")
