"""The values on the page of a difference lead to the lines of its configs."""

from __future__ import annotations

import re
from pathlib import Path

import runner
from runner.compare.places import place_of, step_place
from runner.config import loads
from runner.report.listing import changed_lines
from tests.report.differences import NETWORK, network, report_of_runs, section, two_changes
from tests.report.runs import record

__all__ = ["network", "two_changes"]


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
