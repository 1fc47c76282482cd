"""Snapshots in another environment than theirs: within the uncertainty that was measured, and no further."""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from runner.compare.environment import SWITCHES, SWITCHES_OF_XLA, battery, environment_of, libraries
from runner.compare.numbers import digested
from runner.compare.numbers.bounds import Uncertainty, UncertaintyError, from_text, power, rounded_up, to_text
from runner.compare.snapshots.capture import plan_of
from runner.compare.snapshots.checking import Outcome
from runner.compare.snapshots.reading import read
from runner.compare.snapshots.writing import write
from tests.cli.commands import steprun
from tests.compare.snapshotting import (
    FIRST_FORMAT,
    LINEAR,
    WIDE,
    checked,
    contents,
    edit,
    taken,
)
from tests.compare.uncertainty.elsewhere import elsewhere, line_of
from tests.tables import over

LARGE = """\
parameters: {w: {shape: [512, 512], init: {normal: {}}}}
expression: f = (w * w).mean()
optimizer: {sgd: {lr: 0.1}}
steps: [backward, step]
"""


def checked_with(path: Path, folder: Path, old: str, new: str) -> Outcome:
    edit(path, old, new)
    return checked(folder)


@over("number", [0.0, 1.0, 0.75, 3e-30, 1e300, 2.0**-1074, math.inf])
def test_an_uncertainty_survives_its_text_rounded_up_to_a_power_of_two(number: float) -> None:
    whole = Uncertainty(number / 2, number)
    back = from_text(to_text(whole))
    assert back == rounded_up(whole)
    assert whole.largest <= back.largest
    assert back.largest <= 2 * whole.largest
    assert power(0.75) == "2^0"
    assert power(1.0) == "2^0"


@over("text", ["", "2^1", "2^x,2^1", "1,2", "2^1,2^0", "2^1,2^1,2^1", "nan", "any,2^1", "2^1,any", "2^-9999,2^1"])
def test_what_is_no_uncertainty_is_refused(text: str) -> None:
    with pytest.raises(UncertaintyError, match=r"."):
        from_text(text)


def test_a_difference_within_the_uncertainty_holds_and_one_beyond_does_not(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR, runs=8)
    found = re.fullmatch(r"    x2: 199\.7 ~2\^(-\d+),2\^(-\d+)", line_of(path, "    x2: 199.7"))
    assert found is not None
    rms = 2.0 ** int(found[1])
    mark = found[0].partition(" ~")[2]
    near = float(torch.tensor(199.7 + 4 * rms))
    edit(path, found[0], f"    x2: {near} ~{mark}")
    assert checked(tmp_path).status == "differs"  # bits are compared at home
    elsewhere(path)
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exact, outcome.details["bits"]) == ("holds", False, False)
    outcome = checked_with(path, tmp_path, f"x2: {line_of(path, f'    x2: {near}'[:14]).split()[1]}", "x2: 199.8")
    assert outcome.status == "differs"
    text = "\n".join(outcome.lines)
    assert re.search(r"expected  199\.8 at \[0\], about \d\.\d digits significant", text)
    assert re.search(r"apart     [\d,]+ times its uncertainty \(5 are allowed\); abs 0\.1", text)
    worst = outcome.details["first"]["tensors"][0]["uncertainty"]
    assert worst["allowed"] == 5
    assert worst["times"] == pytest.approx(float(torch.tensor(199.8) - torch.tensor(199.7)) / worst["rms"], rel=1e-3)


def test_one_element_of_many_that_is_off_is_found(tmp_path: Path) -> None:
    path = taken(tmp_path, LARGE, runs=4)
    snapshot, of = read(path)
    row = snapshot.rows[2]
    weights = row["w"]
    assert isinstance(weights, torch.Tensor)
    other = weights.clone()
    other[17, 300] += 1e-3
    values = {**row.values, "w": replace(row.values["w"], value=other, text=moved_text(row.values["w"].text, other))}
    write(replace(snapshot, rows=(*snapshot.rows[:2], replace(row, values=values))), path, of)
    elsewhere(path)
    outcome = checked(tmp_path)
    assert outcome.status == "differs"
    assert outcome.lines[0] == "row 2, 2.step: `w` differs"
    assert "at [17, 300]" in outcome.lines[1]


def moved_text(text: str, value: torch.Tensor) -> str:
    kept = digested.condense(value, statistics=True)
    return f"{digested.to_text(kept)} ~{text.partition(' ~')[2]}"


@pytest.mark.parametrize("large", ["full", "stats", "digest"])
def test_large_tensors_hold_elsewhere_by_what_is_kept_of_them(large: str, tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE + f"snapshot: {{tensors: {large}}}\n", runs=4)
    text = path.read_text()
    whole = text
    digest = re.search(r"w: sha256:([0-9a-f]{16})", text)
    assert digest is not None
    if large != "full":
        text = text.replace(digest[1], "0" * 16)
        path.write_text(text)
        assert checked(tmp_path).status == "differs"
        elsewhere(path)
        outcome = checked(tmp_path)
        assert outcome.status == "holds"
        told = [line for line in outcome.lines if "cannot be compared elsewhere" in line]
        assert bool(told) == (large == "digest")
    if large == "stats":
        found = re.search(r"norm (\S+)~(2\^-?\d+)", whole)
        assert found is not None
        far = float(found[1]) + 100 * 2.0 ** int(found[2][2:])
        edit(path, f"norm {found[1]}~", f"norm {far!r}~")
        assert checked(tmp_path).status == "differs"


def test_a_factor_a_tolerance_or_no_uncertainty_in_the_config_decides(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR, runs=8)
    line = line_of(path, "    x2: 199.7")
    far = float(torch.tensor(199.7)) + 30 * from_text(line.partition(" ~")[2]).rms
    edit(path, line, line.replace("199.7", repr(far)))
    elsewhere(path)
    for section, status in (
        ("{uncertainty: {factor: 5}}", "differs"),
        ("{uncertainty: {factor: 40}}", "holds"),
        ("{uncertainty: false}", "holds"),  # by dtype: relative 6.5e-6
        ("{rtol: 1e-4}", "holds"),
        ("{rtol: 1e-9, tolerances: {x2: {rtol: 1e-4}}}", "holds"),
        ("{tolerances: {x2: bitwise}}", "differs"),
        ("{tolerance: dtype}", "holds"),
    ):
        (tmp_path / "model.yaml").write_text(LINEAR + f"snapshot: {section}\n")
        assert checked(tmp_path).status == status, section


def test_taking_a_snapshot_again_moves_no_line(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(WIDE)
    for _ in range(2):
        done = steprun("snapshot", "model.yaml", "--uncertainty=4", cwd=tmp_path)
        assert done.code == 0
        before = contents(tmp_path)
    assert steprun("snapshot", "model.yaml", cwd=tmp_path).code == 0  # it keeps its count of runs
    assert contents(tmp_path) == before


def test_a_long_config_gets_fewer_runs_and_its_snapshot_says_how_many(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(WIDE)
    done = steprun("snapshot", "model.yaml", "--budget", "0", cwd=tmp_path)
    assert (done.code, done.out.strip().rpartition("; ")[2]) == (0, "uncertainty from 3 perturbed runs")
    path = tmp_path / "snapshots" / "model.yaml"
    assert "uncertainty: {rules: 1, runs: 3, asked: 8}\n" in path.read_text()
    before = path.read_bytes()
    for section in ("", "snapshot: {uncertainty: {factor: 6}}\n"):
        (tmp_path / "model.yaml").write_text(WIDE + section)
        assert steprun("snapshot", "model.yaml", cwd=tmp_path).code == 0
        assert path.read_bytes() == before
    (tmp_path / "model.yaml").write_text(WIDE + "snapshot: {uncertainty: {runs: 5}}\n")
    assert steprun("snapshot", "model.yaml", cwd=tmp_path).code == 0
    assert "uncertainty: {rules: 1, runs: 5}\n" in path.read_text()


# --- the first format


def test_a_snapshot_of_the_first_format_is_compared_by_dtype_and_says_how_to_take_it_again(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    path.write_text(FIRST_FORMAT)
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exact) == ("holds", False)
    assert outcome.lines[-1] == "the snapshot has format 1, without uncertainties: `steprun snapshot` takes it again"
    edit(path, "    x2: 199.7\n", "    x2: 199.70001\n")
    assert checked(tmp_path).status == "holds"
    edit(path, "    x2: 199.70001\n", "    x2: 199.8\n")
    assert checked(tmp_path).status == "differs"
    assert checked(tmp_path, "differing", runs=3).status == "updated"
    assert path.read_text().splitlines()[1] == "format: 2"
    assert checked(tmp_path).lines == ()


def test_a_snapshot_of_the_first_format_is_never_written_as_half_of_the_second(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    path.write_text(FIRST_FORMAT)
    before = contents(tmp_path)
    assert checked(tmp_path, "new").lines[-1].startswith("the snapshot has format 1, without uncertainties")
    assert contents(tmp_path) == before
    done = steprun("snapshot", "model.yaml", "--overlay", cwd=tmp_path)
    assert (done.code, contents(tmp_path)) == (2, before)
    assert "the snapshot of model.yaml has format 1, which has no uncertainties" in done.err
    assert checked(tmp_path, "differing", runs=3).status == "updated"
    assert checked(tmp_path).lines == ()


# --- the environment


def test_the_environment_holds_what_decides_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "model.yaml").write_text(LINEAR)
    plan = plan_of(tmp_path / "model.yaml")
    here = environment_of(plan)
    assert here == environment_of(plan)
    assert re.fullmatch(r"[0-9a-f]{16}", here["battery"])
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert environment_of(plan)["libraries"] == f"{here['libraries']}; MKL_CBWR=COMPATIBLE"
    monkeypatch.delenv("MKL_CBWR")
    torch._C._set_mkldnn_enabled(False)
    try:
        assert environment_of(plan)["libraries"].endswith("; onednn off")
    finally:
        torch._C._set_mkldnn_enabled(True)


def test_the_environment_of_xla_has_what_changes_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SWITCHES, *SWITCHES_OF_XLA):
        monkeypatch.delenv(name, raising=False)
    before, cores = libraries("eager"), len(os.sched_getaffinity(0))
    assert libraries("xla") == f"{before}; xla threads {cores}"
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_max_isa=SSE4_2\n --xla_cpu_enable_fast_math=true")
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "bfloat16")
    assert libraries("eager") == libraries("compile") == before
    flags = "XLA_FLAGS=--xla_cpu_max_isa=SSE4_2 --xla_cpu_enable_fast_math=true"
    assert libraries("xla") == f"{before}; JAX_DEFAULT_MATMUL_PRECISION=bfloat16; {flags}; xla threads {cores}"


def test_the_battery_leaves_the_random_stream_alone() -> None:
    battery.cache_clear()
    torch.manual_seed(4)
    before = torch.get_rng_state()
    first = battery("cpu", torch.get_num_threads())
    assert torch.equal(torch.get_rng_state(), before)
    battery.cache_clear()
    assert battery("cpu", torch.get_num_threads()) == first
