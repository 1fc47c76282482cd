"""The pages of differences: where they open, what they show of each row, and the lines that values lead to."""

from __future__ import annotations

import html
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import runner
from runner.compare.places import place_of, step_place
from runner.compare.runs.difference import compare_runs
from runner.config import loads
from runner.record import open_run
from runner.report.difference.pages import report_of
from runner.report.difference.recorder import MOST_ROWS, Recorder, _pair
from runner.report.difference.sources import difference_of_runs
from runner.report.listing import changed_lines
from runner.report.run.sections import report_of_run
from runner.report.section import Report
from tests.cli.commands import steprun
from tests.report.runs import change, record

NETWORK = """\
parameters: {w: {shape: [4, 6], init: normal}, b: {shape: [6], init: zeros}}
constants: {x: {shape: [5, 4], init: normal}}
expression: |
  h = tanh(x @ w + b)
  loss = h.square().mean()
optimizer: {sgd: {lr: 0.1}}
steps: [{repeat: {times: 40, steps: [train]}}]
"""

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(NETWORK, tmp_path_factory.mktemp("network"))


def report_of_runs(found: Path, expected: Path) -> Report:
    after, before = open_run(found), open_run(expected)
    recorder = Recorder(after.columns, before.columns)
    difference = compare_runs(after, before, observe=recorder)
    return report_of(difference_of_runs(difference, after, before, recorder.result()))


def section(report: Report, name: str) -> Any:
    return next((each for each in report.sections if each.name == name), None)


def test_each_version_is_on_the_page_once(network: Path, tmp_path: Path) -> None:
    """Those of JAX are in two fields of the manifest of a run with `engine: xla`, as that of torch is."""
    run = Path(shutil.copytree(network, tmp_path / "run"))
    versions = {"jax": "0.91.1", "jaxlib": "0.91.2"}
    manifest = open_run(run).manifest
    change(run, engine="xla", **{field: {**manifest[field], **versions} for field in ("versions", "environment")})
    body = str(section(report_of_run(run), "environment").text)
    difference = "".join(str(each.text) for each in report_of_runs(run, network).sections)
    for version in versions.values():
        assert body.count(version) == 1
        assert version in difference


def test_the_errors_and_the_ulps_are_those_of_numpy(network: Path, tmp_path: Path) -> None:
    other = record(NETWORK.replace("lr: 0.1", "lr: 0.1000001"), tmp_path)
    report = report_of_runs(other, network)
    before, after = open_run(network), open_run(other)
    errors = {each["name"]: each for each in section(report, "errors").data["curves"]}
    ulps = {each["name"]: each for each in section(report, "ulps").data["curves"]}
    for name in ("w", "b", "loss", "w.grad"):
        expected, found = {}, {}
        for one, other_row in zip(before, after, strict=True):
            if one[name] is None:
                continue
            a, b = (each[name].numpy().astype(numpy.float64) for each in (one, other_row))  # type: ignore[union-attr]
            if not numpy.array_equal(a, b):
                expected[one.number] = float(numpy.linalg.norm(b - a) / numpy.linalg.norm(a))
                integers = [
                    numpy.abs(each[name].numpy()).view(numpy.int32).astype(numpy.int64)  # type: ignore[union-attr]
                    * numpy.where(numpy.signbit(each[name].numpy()), -1, 1)  # type: ignore[union-attr]
                    for each in (one, other_row)
                ]
                found[one.number] = float(numpy.abs(integers[1] - integers[0]).max())
        assert errors[name]["rows"].tolist() == list(expected)
        numpy.testing.assert_allclose(errors[name]["values"], list(expected.values()), rtol=1e-9)
        assert ulps[name]["values"].tolist() == list(found.values())


def test_a_difference_opens_at_its_first_row_step_and_tensor(network: Path, tmp_path: Path) -> None:
    other = record(NETWORK.replace("h.square()", "(1.5 * h.square())"), tmp_path)
    report = report_of_runs(other, network)
    assert report.opens_at is None
    assert report.sections[0].name == "first"
    first = section(report, "first")
    data = first.data
    row = data["rows"][data["at"]]
    assert (row["row"], row["path"], data["name"]) == (1, "repeat[1].train", "loss")
    one, another = (next(each for each in open_run(side) if each.number == 1) for side in (network, other))
    names = ("w", "b", "w.grad", "b.grad", "h", "loss")
    differ = {name for name in names if not torch.equal(one[name], another[name])}  # type: ignore[arg-type]
    assert set(re.findall(r'<th scope="row"><a [^>]*>([^<]+)</a></th>', first.text)) == differ
    of_runs = {each.number: each.iteration for each in open_run(network)}
    assert [each["iteration"] for each in data["rows"]] == [of_runs[each["row"]] for each in data["rows"]]
    assert re.search(r"first difference: .*row 1, repeat\[1\]\.train.*loss", report.head)
    shown = next(each for each in data["tensors"] if each["name"] == "loss")["shown"][data["at"]]
    ratio = float(shown["found"]) / float(shown["expected"])
    assert math.isclose(ratio, 1.5, rel_tol=1e-5)
    assert shown["error"] == "0.5"
    assert re.findall(r"<li>(.*?)</li>", first.text)[:2] == [
        "the configs differ in <code>expression</code>, which can explain this",
        "the weights match and <code>loss</code> differs: look at its expression",
    ]


BOTH = """\
parameters: {w: {shape: [4, 6], init: normal}}
data: {train: {file: x.csv, columns: {x: [a, b, c, d]}, dtype: {x: float32}, batch_size: 4}}
constants: {c: 2.0}
expression: loss = SQUARE
metrics: {rows: "1.0 * x.shape[0]"}
optimizer: {sgd: {lr: 0.1DECAY}}
steps: [{for_each: {data: train, epochs: 4, steps: [train, {evaluate: train, every: 2}]}}]
"""


@pytest.fixture(scope="module")
def two_changes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs: a square that is written in another way, and a weight decay that came with it."""
    folder = tmp_path_factory.mktemp("two-changes")
    numbers = numpy.random.default_rng(5).normal(size=(8, 4))
    (folder / "x.csv").write_text("\n".join(["a,b,c,d", *(",".join(map(str, row)) for row in numbers)]))
    written = [("(x @ w).square().mean()", ""), ("(x @ w).pow(3 - 1).mean() * 1.0000001", ", weight_decay: 0.001")]
    runs = []
    for place, (square, decay) in enumerate(written):
        text = BOTH.replace("SQUARE", square).replace("DECAY", decay).replace("x.csv", str(folder / "x.csv"))
        runs.append(record(text, folder / str(place), allowed=[folder]))
    return runs[0], runs[1]


def test_the_top_says_what_changed_how_far_it_goes_and_where_it_ends(two_changes: tuple[Path, Path]) -> None:
    before, after = two_changes
    report = report_of_runs(after, before)
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", report.head)
    found = [(name, html.unescape(re.sub(r"<.*?>", "", value))) for name, value in pairs]
    changed = "(x @ w).square().mean()", "(x @ w).pow(3 - 1).mean() * 1.0000001"
    assert found[:2] == [
        ("config", f"expression: loss = {changed[0]} → loss = {changed[1]}"),
        ("config", "optimizer.sgd.weight_decay: not set → 0.001"),
    ]
    said = dict(found)
    weights = [open_run(path).tensor("w")[1].double() for path in (before, after)]
    apart = float((weights[1] - weights[0]).norm() / weights[0].norm())
    unit = float(numpy.finfo(numpy.float32).eps)
    assert f"w {apart:.2g} ({float(f'{apart:.3g}') / unit:,.1f} units)" in said["in row 1"]
    assert said["in row 1"].endswith("; a unit is 1.2e-07, and one rounding is at most half of it")
    assert said["equal in all rows"].startswith("2 of ")  # the batches, and their size
    losses = [next(v for v in reversed(open_run(path).values("loss")) if v is not None) for path in two_changes]
    assert f"loss {float(losses[0]):.6g} → {float(losses[1]):.6g} (row " in said["at the end"]
    assert re.search(r"rows 4 on both sides \(row \d+\)", said["at the end"])
    causes = re.findall(r"<li>(.*?)</li>", section(report, "first").text)
    assert causes[0] == (
        "the configs differ in <code>expression</code>, <code>optimizer.sgd.weight_decay</code>: "
        "try one change at a time"
    )


def test_a_row_says_which_tensors_are_equal_and_which_it_does_not_have(two_changes: tuple[Path, Path]) -> None:
    before, after = two_changes
    data = section(report_of_runs(after, before), "first").data
    steps = [row["step"] for row in data["rows"]]
    tensors = {each["name"]: each for each in data["tensors"]}
    first, evaluated = steps.index("train"), steps.index("evaluate")
    assert tensors["train.loss"]["shown"][first] is tensors["train.loss"]["equal"][first] is None  # not in this row
    assert tensors["loss"]["shown"][evaluated] is tensors["loss"]["equal"][evaluated] is None
    assert tensors["loss"]["shown"][first] is not None or tensors["loss"]["equal"][first] is not None
    numbers = [row["row"] for row in data["rows"]]
    last = {row.step: row.number for row in open_run(before)}
    assert {last["train"], last["evaluate"]} <= set(numbers)


def test_each_side_has_its_own_range_and_the_element_that_is_farthest_apart(two_changes: tuple[Path, Path]) -> None:
    before, after = two_changes
    data = section(report_of_runs(after, before), "first").data
    shown = next(each for each in data["tensors"] if each["name"] == "w")["shown"][-1]
    row = data["rows"][-1]["row"]
    sides = [open_run(path).tensor("w")[row].double().numpy() for path in (before, after)]
    for side, (low, high) in zip(sides, shown["own"], strict=True):
        assert (float(low), float(high)) == pytest.approx((side.min(), side.max()), rel=1e-5)
    place = numpy.unravel_index(numpy.abs(sides[1] - sides[0]).argmax(), sides[0].shape)
    value, _, index = shown["expected"].partition(" at ")
    assert index == str([int(each) for each in place])
    assert (float(value), float(shown["found"])) == pytest.approx((sides[0][place], sides[1][place]), rel=1e-6)


def test_lines_of_the_configs_that_differ_are_marked(two_changes: tuple[Path, Path]) -> None:
    before, after = two_changes
    config = section(report_of_runs(after, before), "config").text
    marked = re.findall(r'<li id="(\w+)-\d+" class="set"><code>(.*?)</code>', config)
    assert [side for side, _ in marked] == ["expected"] * 2 + ["found"] * 2
    assert ["expression" in line or "lr: 0.1" in line for _, line in marked] == [True] * 4
    assert changed_lines("a\nb\nc", "a\nc") == {2}
    assert changed_lines("a", "a") == changed_lines("a\n" * 2000, "b") == frozenset()


def test_a_page_names_the_command_that_prints_the_difference(two_changes: tuple[Path, Path]) -> None:
    before, after = two_changes
    report = report_of_runs(after, before)
    assert f"As <code>steprun diff {before} {after}</code> prints it" in section(report, "first").text
    assert "Tensors that differ in any bit" in section(report, "tensors").text


def test_names_lead_to_the_lines_that_write_them(network: Path, tmp_path: Path) -> None:
    report = report_of_runs(record(NETWORK.replace("lr: 0.1", "lr: 0.2"), tmp_path), network)
    config = section(report, "config").text
    text = (network / "config.yaml").read_text().splitlines()
    numbers = {line.strip().split(" ")[0].rstrip(":"): number for number, line in enumerate(text, 1)}
    leads = {each["name"]: each["line"] for each in section(report, "first").data["tensors"]}
    assert leads["h"] == f"found-{numbers['h']}"
    assert leads["loss"] == f"found-{numbers['loss']}"
    assert leads["w"] == leads["w.grad"] == f"found-{numbers['parameters']}"
    assert set(section(report, "first").data["lines"]) == {f"found-{numbers['steps']}"}
    for side in ("expected", "found"):
        assert f'href="#{side}-{numbers["optimizer"]}"' in config
        assert f'id="{side}-{numbers["optimizer"]}"' in config
    anchors = set(re.findall(r'href="#([^"]+)"', "".join([report.head, *(each.text for each in report.sections)])))
    identities = set(re.findall(r'id="([^"]+)"', config)) | {each.name for each in report.sections}
    assert anchors <= identities
    assert 'The configs differ in <a href="#config">optimizer.sgd.lr</a>.' in section(report, "first").text


def test_pictures_of_both_sides_have_one_scale_and_the_difference_its_own(network: Path, tmp_path: Path) -> None:
    other = record(NETWORK.replace("lr: 0.1", "lr: 0.2"), tmp_path)
    data = section(report_of_runs(other, network), "first").data
    shown = next(each for each in data["tensors"] if each["name"] == "w")["shown"]
    row = data["rows"][data["at"]]["row"]
    a, b = (open_run(path).tensor("w")[row].double().numpy() for path in (network, other))
    cells, (both, apart) = shown[data["at"]]["cells"], shown[data["at"]]["ranges"]
    for side, value, (low, high) in (
        (cells[0], a, (min(a.min(), b.min()), max(a.max(), b.max()))),
        (cells[1], b, (min(a.min(), b.min()), max(a.max(), b.max()))),
        (cells[2], b - a, ((b - a).min(), (b - a).max())),
    ):
        assert (side["height"], side["width"]) == (4, 6)
        expected = numpy.rint((value - low) / (high - low) * 254).reshape(-1)
        assert numpy.abs(side["cells"].astype(int) - expected).max() <= 1  # pictures are float32
    assert (float(both[0]), float(apart[1])) == pytest.approx((min(a.min(), b.min()), (b - a).max()), rel=1e-5)


def test_one_ulp_is_told_from_none(network: Path, tmp_path: Path) -> None:
    one = numpy.float32(1.0)
    config = "parameters: {w: VALUE}\nexpression: loss = w * w\nsteps: [forward]\n"
    runs = [
        record(config.replace("VALUE", repr(float(value))), tmp_path / str(place))
        for place, value in enumerate((one, numpy.nextafter(one, numpy.float32(2)), one))
    ]
    report = report_of_runs(runs[1], runs[0])
    assert "1 ULP" in report.head
    shown = section(report, "first").data["tensors"][0]["shown"][0]
    assert (shown["expected"], shown["found"], shown["ulps"]) == ("1.0", "1.0000001", "1")
    same = report_of_runs(runs[2], runs[0])
    assert "no number differs" in same.head
    assert same.opens_at is None
    assert section(same, "first") is section(same, "errors") is None


def test_a_difference_within_the_tolerance_is_shown_and_does_not_alarm(network: Path, tmp_path: Path) -> None:
    other = record(NETWORK.replace("lr: 0.1", "lr: 0.10000001"), tmp_path)
    done = steprun("diff", network, other, "--tolerance", "rtol=1e-3", "--report", "diff.html", cwd=tmp_path)
    assert done.code == 0, done.err
    made = (tmp_path / "diff.html").read_text()
    assert "nothing differs beyond the tolerance" in made
    assert "Within the tolerance, numbers differ from" in made
    assert 'class="alert"' not in made


def test_a_renamed_tensor_is_found_by_its_bits(tmp_path: Path) -> None:
    config = "parameters: {w: {shape: [3], init: ones}}\nexpression: loss = w.sum()\nsteps: [backward]\n"
    runs = [record(config, tmp_path / "a"), record(re.sub(r"\bw\b", "weight", config), tmp_path / "b")]
    text = section(report_of_runs(runs[1], runs[0]), "structure").text
    cells = re.findall(r'<td><a href="#(\w+)-\d+">([\w.]+)</a></td>', text)
    pairs = [("expected", "w"), ("found", "weight"), ("expected", "w.grad"), ("found", "weight.grad")]
    assert cells == pairs
    assert "side only" not in text


def test_other_shapes_and_lengths_are_said(network: Path, tmp_path: Path) -> None:
    other = record(NETWORK.replace("6]", "7]").replace("times: 40", "times: 30"), tmp_path)
    report = report_of_runs(other, network)
    text = section(report, "structure").text
    assert "is float32 [4, 7], expected float32 [4, 6]" in text
    assert "10 rows on the expected side only" in text
    assert "(shape [4, 6] → [4, 7])" in report.head
    assert "growth" not in report.head
    assert "shape [4, 6] → [4, 7]" in section(report, "tensors").text
    assert "no number" not in section(report, "tensors").text
    shown = next(each for each in section(report, "first").data["tensors"] if each["name"] == "w")["shown"]
    at = next(place for place, each in enumerate(shown) if each is not None)
    assert shown[at]["error"] == "shape [4, 6] → [4, 7]"
    cells, both, own = (shown[at][key] for key in ("cells", "ranges", "own"))
    assert [None if each is None else each["width"] for each in cells] == [6, 7, None]
    row = section(report, "first").data["rows"][at]["row"]
    values = [open_run(path).tensor("w")[row].numpy() for path in (network, other)]
    low, high = (least(map(least, map(numpy.ravel, values))) for least in (min, max))
    assert [float(each) for each in both[0]] == pytest.approx([low, high], rel=1e-5)
    for side, value, ends in zip(cells[:2], values, own, strict=True):
        assert [float(each) for each in ends] == pytest.approx([value.min(), value.max()], rel=1e-5)
        expected = numpy.rint((value.astype(float) - low) / (high - low) * 254).reshape(-1)
        assert numpy.abs(side["cells"].astype(int) - expected).max() <= 1  # pictures are float32


def test_sides_without_elements_or_with_one_are_shown_with_the_range_of_the_other() -> None:
    three = torch.tensor([1.0, 2.0, 4.0])
    pair = _pair(torch.ones(0), three, math.inf, math.nan)
    assert (pair.ranges, pair.own) == ((("1", "4"), ("", "")), (("", ""), ("1", "4")))
    assert pair.cells[0] is pair.cells[2] is None
    assert pair.cells[1] is not None
    assert pair.cells[1].tolist() == [[0, 85, 254]]
    one = _pair(torch.tensor([7.0]), three, math.inf, math.nan)
    assert (one.ranges[0], one.own) == (("1", "7"), (("7", "7"), ("1", "4")))


def test_values_that_are_not_numbers_have_no_error(tmp_path: Path) -> None:
    config = (
        "parameters: {w: 1.0}\nconstants: {c: VALUE}\nexpression: loss = (w * c).sum()\nsteps: [forward]\n"
        "on_nonfinite: ignore\n"
    )
    runs = [
        record(config.replace("VALUE", text), tmp_path / str(place))
        for place, text in enumerate(("1.0", ".nan", ".inf"))
    ]
    for other in runs[1:]:
        report = report_of_runs(other, runs[0])
        assert section(report, "errors") is None
        data = section(report, "first").data
        assert [each["shown"][0]["error"] for each in data["tensors"]] == ["no number"]


@pytest.mark.slow
def test_many_rows_are_kept_in_bounded_memory(tmp_path: Path) -> None:
    config = NETWORK.replace("times: 40", "times: 300").replace("[5, 4]", "[1, 4]")
    runs = [record(config.replace("lr: 0.1", f"lr: {rate}"), tmp_path / str(rate)) for rate in (0.1, 0.1001)]
    report = report_of_runs(runs[1], runs[0])
    data = section(report, "first").data
    numbers = [row["row"] for row in data["rows"]]
    assert len(numbers) <= MOST_ROWS
    assert numbers == sorted(numbers)
    assert numbers[0] == 1
    assert numbers[-1] >= 290
    assert f"rows that differ, {len(numbers)} are shown one by one: " in report.head
    curve = section(report, "errors").data["curves"][0]
    worst = max(curve["values"])
    shown = next(each for each in data["tensors"] if each["name"] == curve["name"])["shown"]
    assert f"{worst:.3g}" in {each["error"] for each in shown if each is not None}


PLACES = """\
parameters: {a.b: 1.0, w: {shape: [2], init: ones}}
constants: {c: 2.0}
expression: |
  u, v = w * a.b, c * w
  total = u + v; loss = total.sum()
metrics:
  size: linalg.norm(w)
optimizer: {adam: {lr: 0.1}}
log: {state: true}
steps:
  - train
  - repeat:
      times: 2
      steps:
        - zero_grad
        - repeat: {times: 3, steps: [backward]}
        - step
"""


@pytest.mark.parametrize(("count", "said"), [(64, []), (65, ["of 65 tensors that differ, the first 64 are shown"])])
def test_the_page_says_how_many_tensors_it_leaves_out(count: int, said: list[str], tmp_path: Path) -> None:
    names = [f"c{place}" for place in range(count)]
    config = f"parameters: {{{', '.join(f'{name}: 1.0' for name in names)}}}\nexpression: y = {' + '.join(names)}\n"
    config += 'steps: [forward]\nlog: {include: ["c*"]}\n'
    after, before = (
        open_run(record(text, tmp_path / side))
        for side, text in (("after", config.replace("1.0", "1.5")), ("before", config))
    )
    recorder = Recorder(after.columns, before.columns)
    compare_runs(after, before, observe=recorder)
    assert [each for each in recorder.result().left_out if "tensors" in each] == said


def test_columns_and_steps_lead_to_their_lines() -> None:
    config = loads(PLACES.replace("a.b", "d"), Path.cwd(), name="places.yaml")
    plan = runner.compile(config)
    found = {column.name: place_of(config, column) for column in plan.columns}
    lines = {name: None if place is None else (place[1].line, place[1].column) for name, place in found.items()}
    assert lines["w"] == lines["w.grad"] == lines["w.exp_avg"] == (1, 22)
    assert lines["d"] == (1, 14)
    assert (lines["u"], lines["v"]) == ((4, 3), (4, 6))
    assert (lines["total"], lines["loss"], lines["size"]) == ((5, 3), (5, 18), (7, 3))
    paths = {
        "1.train": 10,
        "2.repeat[1].1.zero_grad": 14,
        "2.repeat[2].2.repeat[3].backward": 15,
        "2.repeat[2].3.step": 16,
        "start": 10,
        "9.train": 10,
    }
    paths = {path: line + 1 for path, line in paths.items()}
    steps = {path: step_place(config, path) for path in paths}
    assert {path: None if place is None else place[1].line for path, place in steps.items()} == paths


def test_check_writes_a_page_of_what_differs(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        (tmp_path / f"{name}.yaml").write_text(NETWORK.replace("times: 40", "times: 3"))
    assert steprun("snapshot", "good.yaml", "bad.yaml", "--uncertainty=0", cwd=tmp_path).code == 0
    done = steprun("check", "--report", "check.html", "-q", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "Every snapshot holds." in (tmp_path / "check.html").read_text()
    bad = tmp_path / "bad.yaml"
    bad.write_text(bad.read_text().replace("lr: 0.1", "lr: 0.2"))
    done = steprun("check", "--report", "check.html", "-q", cwd=tmp_path)
    made = (tmp_path / "check.html").read_text()
    assert done.code == 3
    assert '"opensAt":"c0-first"' in made
    assert '<a href="#c0-found-6">edited</a>' in made
    assert "which can explain this" in made
    assert re.search(r'<th scope="row">good.yaml</th><td>holds</td>', made)


def test_compare_writes_a_page(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(NETWORK.replace("times: 40", "times: 3"))
    done = steprun("compare", "net.yaml", "--with", "dtype=float64", "--report", "c.html", "--json", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    made = (tmp_path / "c.html").read_text()
    assert "net as it is, and with dtype=float64: 4 rows in lockstep." in made
    assert "<td>float32</td><td>float64</td>" in made


def test_a_page_is_asked_for_before_the_work(network: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "net.yaml").write_text(NETWORK)
    commands = (["diff", network, network], ["check"], ["compare", "net.yaml", "--with", "dtype=float64"])
    for command in commands:
        done = steprun(*command, "--report", "notes.txt", cwd=tmp_path)
        assert (done.code, done.out) == (2, "")
        assert "notes.txt exists, and is not a report" in done.err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_text_of_a_config_is_text_on_the_page(tmp_path: Path) -> None:
    config = f"description: {EVIL}\nparameters: {{w: 1.0}}\nexpression: loss = w * VALUE\nsteps: [forward]\n"
    runs = [record(config.replace("VALUE", str(value)), tmp_path / str(value)) for value in (1, 2)]
    done = steprun("report", *runs, "-o", "page.html", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    made = (tmp_path / "page.html").read_text()
    assert EVIL not in made
    assert made.count("&lt;script&gt;alert(1)") == 2
    again = steprun("report", *runs, "-o", "again.html", cwd=tmp_path)
    assert again.code == 0
    assert (tmp_path / "again.html").read_text() == made


def test_runs_without_rows_and_damaged_runs_are_refused(network: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(network, copy)
    part = next((copy / "rows").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    done = steprun("report", network, copy, cwd=tmp_path)
    assert done.code == 1
    assert "is damaged" in done.err
    shutil.rmtree(copy / "rows")
    done = steprun("report", network, copy, cwd=tmp_path)
    assert done.code != 0
    assert "Traceback" not in done.err
    assert torch.is_grad_enabled()
