"""Snapshots in another environment than theirs: within the uncertainty that was measured, and no further."""

from __future__ import annotations

import contextlib
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from runner.compare.environment import SWITCHES, battery, environment_of
from runner.compare.numbers import digested
from runner.compare.numbers.bounds import Uncertainty, UncertaintyError, from_text, power, rounded_up, to_text
from runner.compare.snapshots.capture import plan_of
from runner.compare.snapshots.checking import Outcome
from runner.compare.snapshots.reading import read
from runner.compare.snapshots.writing import write
from runner.safe_files import Folder
from tests.cli.commands import steprun
from tests.compare.snapshotting import (
    FIRST_FORMAT,
    LINEAR,
    WIDE,
    checked,
    contents,
    edit,
    sidecar_of,
    sidecars_of,
    taken,
)
from tests.tables import over

LARGE = """\
parameters: {w: {shape: [512, 512], init: {normal: {}}}}
expression: f = (w * w).mean()
optimizer: {sgd: {lr: 0.1}}
steps: [backward, step]
"""


def elsewhere(path: Path, **changes: object) -> None:
    """Make a snapshot one of another environment."""
    snapshot, of = read(path)
    changes = changes or {"battery": "0" * 16}
    write(replace(snapshot, environment={**snapshot.environment, **changes}), path, of)


def line_of(path: Path, start: str) -> str:
    return next(line for line in path.read_text().splitlines() if line.startswith(start))


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


def test_the_battery_leaves_the_random_stream_alone() -> None:
    battery.cache_clear()
    torch.manual_seed(4)
    before = torch.get_rng_state()
    first = battery("cpu", torch.get_num_threads())
    assert torch.equal(torch.get_rng_state(), before)
    battery.cache_clear()
    assert battery("cpu", torch.get_num_threads()) == first


# --- an update is one change


@pytest.mark.parametrize("calls", range(5))
def test_a_kill_at_any_point_of_an_update_leaves_a_whole_snapshot(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = taken(tmp_path, WIDE, runs=3)
    before = contents(tmp_path)
    (tmp_path / "model.yaml").write_text(WIDE.replace("lr: 0.1", "lr: 0.2"))
    done = 0

    def killed_at(name: str) -> None:
        nonlocal done
        if done == calls:
            raise KeyboardInterrupt(name)
        done += 1

    for name in ("write", "remove"):
        original = getattr(Folder, name)

        def wrapped(self: Folder, *args: object, original: object = original, name: str = name, **more: object) -> None:
            killed_at(name)
            original(self, *args, **more)  # type: ignore[operator]
            killed_at(name)

        monkeypatch.setattr(Folder, name, wrapped)
    with contextlib.suppress(KeyboardInterrupt):
        checked(tmp_path, "all", runs=3)
    monkeypatch.undo()
    snapshot, _ = read(path)  # raises where the text and the elements do not belong together
    is_old = path.read_bytes() == before["snapshots/model.yaml"]
    weights = snapshot.rows[-1]["w"]
    assert isinstance(weights, torch.Tensor)
    assert checked(tmp_path).status == ("differs" if is_old else "holds")
    assert checked(tmp_path, "all", runs=3).status == "updated"
    assert len(sidecars_of(path)) == 1  # what was left over is gone
    assert checked(tmp_path).status == "holds"


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = outside / "victim"
    victim.write_text("precious")
    inside = tmp_path / "inside"
    inside.mkdir()
    path = taken(inside, WIDE)
    sidecar = sidecar_of(path)
    sidecar.rename(outside / sidecar.name)
    sidecar.symlink_to(outside / sidecar.name)
    assert checked(inside).status == "damaged"
    sidecar.unlink()
    (outside / sidecar.name).rename(sidecar)
    for name in (f".{path.name}.writing", f"{path.name}.tmp"):
        (path.parent / name).symlink_to(victim)
    assert checked(inside, "all").status == "updated"
    assert victim.read_text() == "precious"
    folder = path.parent
    folder.rename(outside / "snapshots")
    folder.symlink_to(outside / "snapshots")
    before = contents(outside)
    done = steprun("snapshot", "model.yaml", "--uncertainty=0", cwd=inside)
    assert done.code != 0
    assert "it is a link" in done.err
    assert contents(outside) == before
    outcome = checked(inside)
    told = (f"cannot use {path.parent} as the folder of snapshots: it is a link", "= replace it with a folder")
    assert (outcome.status, outcome.lines) == ("damaged", told)


def test_an_update_warns_where_a_number_means_little(tmp_path: Path) -> None:
    text = "parameters: {x: 0.3}\nexpression: y = 3.9 * x * (1 - x)\nsteps:\n"
    taken(tmp_path, text + "  - repeat: {times: 40, steps: [forward, {assign: {x: y}}]}\n", runs=3)
    outcome = checked(tmp_path, "all", runs=3)
    assert outcome.status == "updated"
    assert any(
        re.fullmatch(r"from row \d+ on `y`.* uncertain to .*: keep earlier rows", line) for line in outcome.lines
    )


def test_the_details_count_what_is_kept_as_a_digest_alone(tmp_path: Path) -> None:
    taken(tmp_path, WIDE + "snapshot: {tensors: digest}\n", runs=3)
    assert checked(tmp_path).details["digests"] == 5  # `w` after each of 3 rows, `w.grad` after 2


def test_an_empty_mapping_that_gets_entries_is_no_field_that_was_removed(tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE)
    edit(tmp_path / "model.yaml", "normal: {}", "normal: {std: 1.0}")
    assert [each["field"] for each in checked(tmp_path).details["edited"]] == ["parameters.w.init.normal.std"]
    path.unlink()
    assert checked(tmp_path, "new").status == "written"
    edit(tmp_path / "model.yaml", "normal: {std: 1.0}", "normal: {}")
    found = [(each["field"], each["kind"]) for each in checked(tmp_path).details["edited"]]
    assert found == [("parameters.w.init.normal.std", "removed")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_or_a_huge_file_in_place_of_a_snapshot_does_not_block(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    path.unlink()
    os.mkfifo(path)
    assert checked(tmp_path).lines[0] == f"cannot read {path}: it is a pipe, socket or device"
    path.unlink()
    with path.open("wb") as file:
        file.truncate(3 << 30)
    assert "bytes, and at most" in checked(tmp_path).lines[0]


def test_an_edit_in_a_base_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(LINEAR)
    taken(tmp_path, "extends: base.yaml\n")
    edit(tmp_path / "base.yaml", "30 * x2", "31 * x2")
    outcome = checked(tmp_path)
    assert outcome.lines[0] == f"`expression.f` was edited ({tmp_path / 'base.yaml'}:3)"


# --- updates and overlays of measured snapshots


def test_an_overlay_of_a_measured_snapshot_is_as_uncertain_as_what_it_lies_over(tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE, runs=3)
    elsewhere(path)
    edit(path, line_of(path, "    f: "), line_of(path, "    f: ").replace(": ", ": 1", 1))
    assert checked(tmp_path).status == "differs"
    done = steprun("snapshot", "model.yaml", "--overlay", cwd=tmp_path)
    assert done.code == 0, done.err
    snapshot, _ = read(path)
    assert [list(row) for row in snapshot.overlays[0].rows.values()] == [["f"]]
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exact) == ("holds", True)
    rows = snapshot.overlaid(snapshot.overlays[0])
    assert rows[1].values["f"].uncertainty == snapshot.rows[1].values["f"].uncertainty


REFACTORED = """\
parameters: {w: {shape: [5, 7], init: {normal: {}}}}
constants: {x: {shape: [9, 5], init: {normal: {}}}}
expression: f = ((x @ w) ** 2).mean()
optimizer: {sgd: {lr: 0.1}}
steps: 3
"""


def test_an_update_of_an_edited_config_whose_bits_moved_holds_afterwards(tmp_path: Path) -> None:
    taken(tmp_path, REFACTORED, runs=4)
    (tmp_path / "model.yaml").write_text(
        REFACTORED.replace("((x @ w) ** 2).mean()", "(x @ w / 3 * (x @ w)).mean() * 3")
    )
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.details["bits"]) == ("holds", False)
    assert checked(tmp_path, "differing", runs=4).status == "updated"
    outcome = checked(tmp_path)
    assert (outcome.status, outcome.exact, outcome.lines) == ("holds", True, ())


def test_new_writes_over_no_difference_where_uncertainties_would_come(tmp_path: Path) -> None:
    path = taken(tmp_path, LINEAR)
    edit(path, "    f: 7000.0", "    f: 7001.0")
    before = path.read_bytes()
    assert checked(tmp_path, "new", runs=3).status == "differs"
    assert path.read_bytes() == before


def test_an_update_refuses_noise_as_taking_a_snapshot_does(tmp_path: Path) -> None:
    text = "parameters: {w: {shape: [5], init: {normal: {}}}}\nexpression: f = (w.exp().log() - w).sum()\n"
    (tmp_path / "model.yaml").write_text(text + "log: {include: [f]}\nsteps: [forward]\n")
    outcome = checked(tmp_path, "new", runs=4)
    assert outcome.status == "failed"
    assert "is uncertain by more than a tenth, in every row" in outcome.lines[0]
    assert not (tmp_path / "snapshots").exists()


def test_taking_again_follows_a_config_that_measures_nothing_any_more(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(LINEAR)
    assert steprun("snapshot", "model.yaml", "--uncertainty=3", cwd=tmp_path).code == 0
    (tmp_path / "model.yaml").write_text(LINEAR + "snapshot: {uncertainty: false}\n")
    assert steprun("snapshot", "model.yaml", cwd=tmp_path).code == 0
    assert read(tmp_path / "snapshots" / "model.yaml")[0].measured is None
    done = steprun("snapshot", "model.yaml", "--uncertainty=2", cwd=tmp_path)
    assert (done.code, "it takes 0, or 3 or more" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("section", "old", "new", "field"),
    [
        ("{every: 5}", "lr: 0.1", "lr: 0.11", "optimizer.sgd.lr"),
        (
            "{include: [f]}",
            "w: {shape: [5, 7], init: {normal: {}}}",
            "w: {shape: [5, 7], init: {normal: {std: 2}}}",
            ".std",
        ),
        ("{include: [w]}", "f = ((x @ w)", "f = 1.1 * ((x @ w)", "expression.f"),
    ],
)
def test_an_edit_is_a_cause_though_what_it_changes_first_is_not_kept(
    section: str, old: str, new: str, field: str, tmp_path: Path
) -> None:
    text = REFACTORED.replace("steps: 3", "steps: 10") + f"snapshot: {section}\n"
    taken(tmp_path, text, runs=3)
    assert old in text
    (tmp_path / "model.yaml").write_text(text.replace(old, new))
    outcome = checked(tmp_path)
    assert outcome.status == "differs"
    assert any(field in cause and cause.endswith("can explain this") for cause in outcome.details["causes"])


UPDATES = """\
import sys
from pathlib import Path
from runner.compare.snapshots.checking import Request, Target, check
folder, rate = Path(sys.argv[1]), sys.argv[2]
target = Target(str(folder / "model.yaml"), str(folder / "snapshots" / "model.yaml"))
for _ in range(30):
    outcome = check(target, Request("all", (f"optimizer.sgd.lr={rate}",), runs=0))
    assert outcome.status == "updated", outcome.lines
"""


@pytest.mark.slow
def test_of_two_updates_at_once_each_leaves_a_whole_snapshot(tmp_path: Path) -> None:
    path = taken(tmp_path, WIDE)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    both = [
        subprocess.Popen([sys.executable, "-c", UPDATES, str(tmp_path), rate], env=environment)
        for rate in ("0.2", "0.3")
    ]
    assert [process.wait() for process in both] == [0, 0]
    read(path)
    assert len(sidecars_of(path)) == 1


def test_a_snapshot_that_another_process_writes_for_long_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = taken(tmp_path, LINEAR)
    monkeypatch.setattr("runner.compare.snapshots.writing.PATIENCE", 0.0)
    with Folder(path.parent) as folder, folder.locked():
        outcome = checked(tmp_path, "all")
    assert outcome.lines[0] == f"cannot write the snapshot {path}: another process is writing to it"
