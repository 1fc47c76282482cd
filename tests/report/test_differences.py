"""Where the page of a difference opens, and what its top says."""

from __future__ import annotations

import html
import math
import re
import shutil
from pathlib import Path

import numpy
import torch

from runner.record import open_run
from runner.report.run.sections import report_of_run
from tests.report.differences import NETWORK, network, report_of_runs, section, two_changes
from tests.report.runs import change, record

__all__ = ["network", "two_changes"]


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


def test_a_renamed_tensor_is_found_by_its_bits(tmp_path: Path) -> None:
    config = "parameters: {w: {shape: [3], init: ones}}\nexpression: loss = w.sum()\nsteps: [backward]\n"
    runs = [record(config, tmp_path / "a"), record(re.sub(r"\bw\b", "weight", config), tmp_path / "b")]
    text = section(report_of_runs(runs[1], runs[0]), "structure").text
    cells = re.findall(r'<td><a href="#(\w+)-\d+">([\w.]+)</a></td>', text)
    pairs = [("expected", "w"), ("found", "weight"), ("expected", "w.grad"), ("found", "weight.grad")]
    assert cells == pairs
    assert "side only" not in text
