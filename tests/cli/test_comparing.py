"""`steprun compare` and `steprun diff`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.commands import Outcome, steprun
from tests.compare.variants.test_error_table import SHRINKING
from tests.manifests import manifest_fields

COURSE = """\
c: as it is, and with rate=0.125
relative error
  row  step                   h     loss   x.grad        x
    0  start                                             0
    1  repeat[1].train        0        0        0  5.0e-01
  … 2 rows …
    4  repeat[4].train  1.0e+01  1.0e+01  2.4e+00  4.1e+00
  … 1 row …
    6  repeat[6].train  5.7e+01  5.7e+01  6.6e+00  1.0e+01
    7  repeat[7].train  1.3e+02  1.3e+02  1.0e+01  1.6e+01
    8  repeat[8].train  2.9e+02  2.9e+02  1.6e+01  2.5e+01

  tensor  born    first     last  largest  in row         ULP  growth
  h          2  1.2e+00  2.9e+02  2.9e+02       8  68,286,194  jump
  loss       2  1.2e+00  2.9e+02  2.9e+02       8  68,304,590  jump
  x.grad     2  5.0e-01  1.6e+01  1.6e+01       8  34,123,776  jump
  x          1  5.0e-01  2.5e+01  2.5e+01       8  38,602,752  jump

born in row 1, repeat[1].train: `x` differs
  cause     gradients bit-equal, update of `x` differs: look at the optimizer
            the update is 1/2 × the expected one
"""

NARROW = """\
c: as it is, and with rate=0.125
relative error, and that of the step alone
  row  step                loss  alone        x    alone
    0  start                                  0        0
  … 6 rows …
    7  repeat[7].train  1.3e+02      0  1.6e+01  5.0e-01
    8  repeat[8].train  2.9e+02      0  2.5e+01  5.0e-01
  and 2 more tensors that do not fit on the screen

  tensor  born    first  largest  in row    alone  growth
  h          2  1.2e+00  2.9e+02       8        0  jump
  loss       2  1.2e+00  2.9e+02       8        0  jump
  x.grad     2  5.0e-01  1.6e+01       8        0  jump
  x          1  5.0e-01  2.5e+01       8  5.0e-01  jump

born in row 1, repeat[1].train: `x` differs
  cause     gradients bit-equal, update of `x` differs: look
            at the optimizer
            the update is 1/2 × the expected one
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(SHRINKING)
    return tmp_path


def compared(folder: Path, *arguments: str, columns: int = 80, lines: int = 24) -> Outcome:
    terminal = {"COLUMNS": str(columns), "LINES": str(lines)}
    return steprun("compare", "c.yaml", *arguments, cwd=folder, environment=terminal)


def test_two_variants_are_a_table_by_row_one_by_tensor_and_where_they_part(folder: Path) -> None:
    assert compared(folder, "--with", "rate=0.125") == Outcome(0, COURSE, "")


def test_a_narrow_screen_shows_fewer_tensors_and_columns(folder: Path) -> None:
    shown = compared(folder, "--with", "rate=0.125", "--reinject", "--rows", "3", columns=60, lines=40)
    assert shown == Outcome(0, NARROW, "")


def test_variants_that_do_not_differ_say_so(folder: Path) -> None:
    assert compared(folder, "--with", "dtype=float64") == Outcome(
        0, "c: as it is, and with dtype=float64\nnothing differs: 4 tensors in 9 rows\n", ""
    )


def test_rows_of_one_side_alone_are_told(folder: Path) -> None:
    assert compared(folder, "--with", "steps=9") == Outcome(
        0,
        "c: as it is, and with steps=9\n1 row is new: row 9, repeat[9].train\n"
        "nothing else differs: 4 tensors in 9 rows\n",
        "",
    )


def test_an_optimizer_against_its_rule(folder: Path) -> None:
    assert compared(folder, "--with", "optimizer=rule:sgd", "--reinject").out == (
        "c: as it is, and with optimizer=rule:sgd\neach side keeps its own state of `optimizer`\n"
        "nothing differs: 4 tensors in 9 rows\n"
    )


def test_random_steps_in_another_dtype_are_told(folder: Path) -> None:
    (folder / "c.yaml").write_text(SHRINKING.replace("h = x ** 2", "h = x ** 2 + 0 * randn(2)"))
    assert compared(folder, "--with", "dtype=float64").out == (
        "c: as it is, and with dtype=float64\nrandom operations of the steps draw other numbers in another dtype\n"
        "nothing differs: 4 tensors in 9 rows\n"
    )
    assert "random" not in compared(folder, "--with", "rate=0.25").out


def test_the_whole_course_as_json(folder: Path) -> None:
    told = json.loads(compared(folder, "--with", "rate=0.125", "--with", "dtype=float64", "--reinject", "--json").out)
    assert (told["name"], told["with"], told["rows"]) == ("c", ["rate=0.125", "dtype=float64"], 9)
    assert (told["compared"], told["reinjected"], told["equal"], told["within_tolerance"]) == (4, True, False, None)
    assert [step["row"] for step in told["steps"]] == list(range(9))
    assert told["steps"][2]["tensors"]["x"] == {
        "error": pytest.approx(1.25),
        "ulp": pytest.approx(9_437_184, rel=0.2),
        "local": pytest.approx(0.5),
    }
    assert told["verdict"]["first"]["path"] == "repeat[1].train"
    assert {tensor["name"]: tensor["born"] for tensor in told["tensors"]} == {"h": 2, "loss": 2, "x.grad": 2, "x": 1}


def test_a_tolerance_that_is_passed_exits_3(folder: Path) -> None:
    shown = compared(folder, "--with", "rate=0.125", "--tolerance", "ulp=3")
    assert (shown.code, shown.out) == (3, COURSE)
    assert shown.err == (
        "steprun\n      the difference exceeds the tolerance ulp=3: row 1, repeat[1].train: `x` differs\n"
        "      = it passes at rtol 0.501, or atol 1 alone, or ulp 4,194,304\n"
    )
    assert compared(folder, "--with", "dtype=float64", "--tolerance", "bitwise").code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            (),
            "steprun\n      the variant is missing\n      = write for example `--with dtype=float64`\n",
        ),
        (("--with", "dtype"), "steprun\n      `--with dtype` has no value\n      = write `--with dtype=…`\n"),
        (
            ("--with", "rate=1", "--tolerance", "near"),
            "steprun\n      there is no tolerance `near`\n"
            "      = it takes `bitwise`, `dtype`, `ulp=4`, `rtol=1e-3`, or `rtol=1e-3,atol=1e-6`\n",
        ),
        (
            ("--with", "rate=1", "--tolerance", "ulp=1.5"),
            "steprun\n      there is no tolerance `ulp=1.5`\n"
            "      = it takes `bitwise`, `dtype`, `ulp=4`, `rtol=1e-3`, or `rtol=1e-3,atol=1e-6`\n",
        ),
        (
            ("--with", "rate=1", "--tolerance", "rtol=-1"),
            "steprun\n      the tolerance `rtol=-1` has -1, which must be 0 or more\n"
            "      = it takes `bitwise`, `dtype`, `ulp=4`, `rtol=1e-3`, or `rtol=1e-3,atol=1e-6`\n",
        ),
        (
            ("--with", "steps=9", "--reinject"),
            "steprun\n      a step cannot start from the other side's state: the steps differ, "
            "`a loop of 8` here is `a loop of 9` there\n",
        ),
        (
            ("--with", "dtpe=float64"),
            "override dtpe=float64:1:1\n    1 | dtpe=float64\n"
            "      | ^^^^ there is no top-level key or scalar constant `dtpe`\n      = did you mean `dtype`?\n",
        ),
        (
            ("--with", "optimizer=rule:sdg"),
            "steprun\n      there is no rule `sdg`\n      = did you mean `sgd`?\n",
        ),
        (
            ("--with", "threads=no"),
            "steprun\n      `--with threads=no`: threads are a number from 1 to 1024\n",
        ),
    ],
)
def test_what_cannot_be_compared_is_told(folder: Path, arguments: tuple[str, ...], told: str) -> None:
    assert compared(folder, *arguments) == Outcome(2, "", told)


# --- diff


def recorded(folder: Path, *overrides: str) -> str:
    return steprun("run", "c.yaml", *overrides, "--quiet", cwd=folder).out.strip()


def without_stamps(text: str) -> str:
    """Run directories are named after the time."""
    return re.sub(r"\d{8}-\d{6}-[0-9a-f]{4}", "RUN", text)


def diff(folder: Path, *arguments: str, columns: int = 100) -> Outcome:
    shown = steprun("diff", *arguments, cwd=folder, environment={"COLUMNS": str(columns)})
    return Outcome(shown.code, without_stamps(shown.out), without_stamps(shown.err))


DIFFERENT = """\
expected  runs/c/RUN  finished, 9 rows of 4 tensors
found     runs/c/RUN  finished, 9 rows of 4 tensors

config
  constants.rate  0.25 → 0.125  (config.yaml:3 of both)
  seed            nothing → 3  (found config.yaml:9)

rows  9 rows, bit for bit
  row 1, repeat[1].train: `x` differs
    expected  2.0 at [0]
    found     3.0
    apart     abs 1, rel 0.5, 4,194,304 ULP of float32
    elements  2 of 2 differ (100%)
    passes at rtol 0.501, or atol 1 alone, or ulp 4,194,304
    cause     the configs differ in `constants.rate`, `seed`: try one change at a time
              gradients bit-equal, update of `x` differs: look at the optimizer
              the update is 1/2 × the expected one
    growth    a jump: error 0.5 in row 1, 25 in row 8
    tensor  differs in   from row  largest error
    x       8 of 9 rows  1         25
    h       7 of 8 rows  2         2.9e+02
    loss    7 of 8 rows  2         2.9e+02
    x.grad  7 of 8 rows  2         16
"""


def test_equal_runs_exit_0(folder: Path) -> None:
    assert diff(folder, recorded(folder), recorded(folder)) == Outcome(
        0,
        "expected  runs/c/RUN  finished, 9 rows of 4 tensors\nfound     runs/c/RUN  finished, 9 rows of 4 tensors\n\n"
        "rows  9 rows, bit for bit: nothing differs\n",
        "",
    )


def test_runs_that_differ_exit_3_and_tell_config_then_rows(folder: Path) -> None:
    expected, found = recorded(folder), recorded(folder, "rate=0.125", "seed=3")
    assert diff(folder, expected, found) == Outcome(3, DIFFERENT, "")
    assert diff(folder, expected, found, "--tolerance", "rtol=300").code == 0


def test_a_run_that_is_not_finished_says_how_much_was_compared(folder: Path) -> None:
    whole, part = recorded(folder), recorded(folder, "steps=3")
    manifest = folder / part / "run.json"
    manifest.write_text(json.dumps(manifest_fields(manifest) | {"status": "interrupted"}))
    shown = diff(folder, whole, part)
    assert shown.code == 0
    assert shown.out.splitlines()[1] == "found     runs/c/RUN  interrupted, 4 rows of 4 tensors"
    assert (
        shown.out.splitlines()[-1] == "rows  the first 4 rows, all that both have so far, bit for bit: nothing differs"
    )


def test_a_difference_as_json(folder: Path) -> None:
    expected, found = (recorded(folder, "on_nonfinite=ignore", *rate) for rate in ((), ("rate=.inf",)))
    shown = steprun("diff", expected, found, "--json", cwd=folder)
    assert shown.code == 3
    told = json.loads(shown.out, parse_constant=pytest.fail)
    assert told["expected"] == {"path": expected, "status": "finished", "rows": 9}
    (key,) = told["config"]
    assert (key["key"], key["found"]["value"]) == ("constants.rate", "inf")
    assert key["expected"] == {"there": True, "value": 0.25, "at": f"{expected}/config.yaml:3:19"}
    assert (told["tolerance"], told["first_rows"], told["verdict"]["holds"]) == ("bitwise", None, False)


def test_a_run_that_there_is_not_is_told(folder: Path) -> None:
    run = recorded(folder)
    assert diff(folder, run, "nowhere") == Outcome(
        2, "", "steprun\n      there is no folder nowhere\n      = `steprun runs` lists the recorded runs\n"
    )
    assert diff(folder, "runs", run) == Outcome(
        2,
        "",
        "steprun\n      runs is not a run directory: it has no run.json\n"
        "      = `steprun runs` lists the recorded runs\n",
    )


def test_a_run_without_rows_is_told(folder: Path) -> None:
    run, empty = recorded(folder), recorded(folder, "steps=1")
    for part in (folder / empty / "rows").iterdir():
        part.unlink()
    (folder / empty / "rows.json").unlink()
    assert diff(folder, run, empty) == Outcome(
        2, "", "steprun\n      runs/c/RUN is finished and has no rows\n      = take another run\n"
    )


def test_many_differences_fit_one_screen(folder: Path) -> None:
    text = SHRINKING.replace("steps: 8", "steps: 3").replace("constants: {", "constants: {%s, ")
    (folder / "c.yaml").write_text(text % ", ".join(f"k{number}: {number}" for number in range(40)))
    expected = recorded(folder)
    (folder / "c.yaml").write_text(text % ", ".join(f"k{number}: -{number + 1}" for number in range(40)))
    shown = diff(folder, expected, recorded(folder, "rate=0.125"), columns=60)
    assert shown.code == 3
    assert "  and 35 more keys" in shown.out.splitlines()
    assert len(shown.out.splitlines()) <= 24
    assert all(len(line) <= 62 for line in shown.out.splitlines() if "runs/c" not in line)
