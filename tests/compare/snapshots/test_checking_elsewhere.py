"""What `check` compares in another environment: tolerances, updates and overlays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from runner.compare.snapshots.capture import plan_of, snapshot_of
from runner.compare.snapshots.reading import read
from runner.compare.snapshots.updating import with_overlay
from runner.compare.snapshots.writing import write
from runner.engine import execute
from tests.compare.snapshotting import LINEAR, WIDE, checked, contents, edit, sidecars_of, taken
from tests.tables import over

# --- environments


def elsewhere(path: Path, **changes: object) -> None:
    """Make a snapshot one of another environment."""
    snapshot, of = read(path)
    write(replace(snapshot, environment={**snapshot.environment, **changes}), path, of)


def test_another_environment_is_compared_within_the_tolerance_of_the_dtype(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    edit(path, "    x2: 199.7\n", "    x2: 199.70001\n")
    assert checked(tmp_path).status == "differs"
    elsewhere(path, torch="9.9.9")
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exact) == ("holds", False)
    edit(path, "    x2: 199.70001\n", "    x2: 199.8\n")
    assert checked(tmp_path).status == "differs"


@over(
    ("section", "holds"),
    [
        ("{tolerance: bitwise}", False),
        ("{ulp: 1}", True),
        ("{ulp: 0}", False),
        ("{rtol: 1e-7}", True),
        ("{rtol: 1e-8}", False),
        ("{atol: 2e-5}", True),
        ("{atol: 1e-6}", False),
        ("{atol: 1e-6, tolerances: {x2: {ulp: 2}}}", True),
        ("{rtol: 1, tolerances: {x?: bitwise}}", False),
        ("{rtol: 1, tolerances: {x?: dtype}}", True),
    ],
)
def test_a_tolerance_of_the_config_holds_in_other_environments(section: str, holds: bool, tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR + f"snapshot: {section}\n")
    edit(path, "    x2: 199.7\n", "    x2: 199.70001\n")
    assert checked(tmp_path).status == "differs"  # bits are compared at home
    elsewhere(path, threads=77)
    assert checked(tmp_path).status == ("holds" if holds else "differs")


def test_a_tolerance_holds_at_home_where_the_config_says_so(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR + "snapshot: {exact: false}\n")
    edit(path, "    x2: 199.7\n", "    x2: 199.70001\n")
    assert checked(tmp_path).status == "holds"


def test_an_update_elsewhere_takes_everything_for_half_a_snapshot_holds_nowhere(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    edit(path, "    x2: 199.7\n", "    x2: 199.8\n")
    elsewhere(path, torch="9.9.9")
    before = path.read_bytes()
    outcome = checked(tmp_path, "differing")
    assert outcome.lines == (f"wrote {path}: 1 tensor changed, taken whole in this environment",)
    assert read(path)[0].environment["torch"] == torch.__version__
    assert checked(tmp_path).exact
    path.write_bytes(before)
    edit(path, "    x2: 199.8\n", "    x2: 199.70001\n")
    before = path.read_bytes()
    assert checked(tmp_path, "differing").status == "holds"
    assert path.read_bytes() == before


def test_an_overlay_holds_what_is_other_in_one_environment_and_no_more(tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE)
    elsewhere(path, device="cuda", device_name="another")
    base, of = read(path)
    row = base.rows[1]
    moved = {**row.values, "w": base.rows[0].values["w"]}
    base = replace(base, rows=(base.rows[0], replace(row, values=moved), *base.rows[2:]))
    write(base, path, of)
    assert checked(tmp_path).status == "differs"
    plan = plan_of(tmp_path / "model.yaml")
    write(with_overlay(base, snapshot_of(plan, execute(plan))), path, of)
    found, _ = read(path)
    assert [(number, list(values)) for number, values in found.overlays[0].rows.items()] == [(1, ["w"])]
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exact) == ("holds", True)
    before = contents(tmp_path)
    assert checked(tmp_path, "differing").status == "holds"
    assert contents(tmp_path) == before


@pytest.mark.parametrize("large", ["stats", "digest"])
def test_large_tensors_without_elements_are_held_by_what_is_kept(large: str, tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE + f"snapshot: {{tensors: {large}}}\n")
    assert not sidecars_of(path)
    assert checked(tmp_path).status == "holds"
    edit(path, "w: sha256:", "w: sha256:0000000000000000 ")
    lines = path.read_text().splitlines()
    broken = next(number for number, line in enumerate(lines) if "0000000000000000" in line)
    digest, _, statistics = lines[broken].partition("0000000000000000 ")[2].partition(" ")
    assert len(digest) == 16
    lines[broken] = f"    w: sha256:{'0' * 16} {statistics}".rstrip()
    path.write_text("\n".join(lines) + "\n")
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.lines[0]) == ("differs", "row 0, start: `w` differs in its digest")
    untold = {
        "stats": "the stored statistics are equal in all digits",
        "digest": "only digests were stored",
    }[large]
    assert " ".join(" ".join(outcome.lines[1:3]).split()).startswith(f"apart unknown: {untold}")
    elsewhere(path, torch="9.9.9")
    assert checked(tmp_path).status == "holds"  # the same statistics, or none to compare
    if large == "stats":
        norm = statistics.split("norm ")[1].split()[0]
        edit(path, f"norm {norm}", "norm 1000")
        outcome = checked(tmp_path)
        assert outcome.status == "differs"
        assert outcome.lines[1].startswith("  moved     norm ")
        assert outcome.lines[1].endswith("(was 1000)")
