"""The application as a whole: help, version, the bare config, exit codes, what is imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runner import __version__
from runner.cli.app import application, with_command
from tests.cli.commands import LINEAR, steprun, steprun_process, top_modules_after
from tests.tables import over

COMMANDS = ("run", "validate", "show", "schema", "ops", "runs")


def test_help_lists_every_command() -> None:
    shown = CliRunner().invoke(application, ["--help"])
    assert shown.exit_code == 0
    assert all(f"\n  {command} " in shown.output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(command: str) -> None:
    shown = CliRunner().invoke(application, [command, "--help"])
    assert shown.exit_code == 0
    assert "\n  Examples:\n" in shown.output
    assert f"steprun {command}" in shown.output or command == "run"


@pytest.mark.parametrize("arguments", [["ops", "softmax"], ["runs", "--runs-dir", "nowhere"]])
def test_what_needs_no_tensor_imports_no_torch(arguments: list[str]) -> None:
    assert top_modules_after(*arguments).isdisjoint({"torch", "numpy", "pyarrow"})


def test_version() -> None:
    assert CliRunner().invoke(application, ["--version"]).output == f"steprun {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["linear.yaml"], ["run", "linear.yaml"]),
        (["linear.yaml", "lr=1"], ["run", "linear.yaml", "lr=1"]),
        (["--quiet", "linear.yaml"], ["run", "--quiet", "linear.yaml"]),
        (["-"], ["run", "-"]),
        (["show", "linear.yaml"], ["show", "linear.yaml"]),
        (["--help"], ["--help"]),
        ([], []),
    ],
)
def test_a_first_argument_that_is_no_command_is_a_config_to_run(arguments: list[str], expected: list[str]) -> None:
    assert with_command(arguments, COMMANDS, {"--help", "-h", "--version"}) == expected


def test_no_arguments_show_the_help() -> None:
    shown = CliRunner().invoke(application, [])
    assert "Usage: steprun" in shown.output


def test_the_config_may_come_on_standard_input() -> None:
    done = steprun("validate", "-", stdin=LINEAR)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("arguments", [["run"], ["show", "--nonsense", "x"], ["validate", "a.yaml", "--format", "xml"]])
def test_wrong_usage_exits_2_and_says_so_on_standard_error(arguments: list[str]) -> None:
    done = steprun_process(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert "Usage: steprun" in done.err
    assert "Traceback" not in done.err


def test_a_file_that_is_not_there_exits_2(tmp_path: Path) -> None:
    done = steprun("absent.yaml", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err == "steprun\n      there is no file absent.yaml\n"


@over(
    ("argument", "message", "hint"),
    [
        ("lineer.yaml", "there is no file lineer.yaml", "did you mean `linear.yaml`?"),
        ("linear.yml", "there is no file linear.yml", "did you mean `linear.yaml`?"),
        ("inner/smal.yaml", "there is no file inner/smal.yaml", "did you mean `inner/small.yaml`?"),
        ("help", "there is no command and no file `help`", "write `steprun --help`"),
        ("version", "there is no command and no file `version`", "write `steprun --version`"),
        ("linear", "there is no command and no file `linear`", "did you mean `linear.yaml`?"),
        ("x.yaml w = 3", "`w = 3` has spaces", "write `w=3`"),
        ("x.yaml w =3", "`w =3` has spaces", "write `w=3`"),
        ("x.yaml w= 3", "`w= 3` has spaces", "write `w=3`"),
        ("x.yaml --columns w v", "`v` is not an override: it has no `=`", "write `--columns w,v`"),
    ],
)
def test_a_slip_of_the_first_minutes_gets_the_right_words(
    argument: str, message: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / "inner").mkdir(exist_ok=True)
    for name in ("linear.yaml", "notes.txt", "inner/small.yaml"):
        (tmp_path / name).touch()
    done = steprun(*argument.split(), cwd=tmp_path)
    assert (done.code, done.out, done.err) == (2, "", f"steprun\n      {message}\n      = {hint}\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["linear.yaml", "--lr=3"], "No such option: --lr; an override has no dashes: lr=3"),
        (["linear.yaml", "--lr", "3"], "No such option: --lr; an override has no dashes: lr=3"),
        (
            ["linear.yaml", "--chekpoint-every=5"],
            "--chekpoint-every (Possible options: --checkpoint-every)",
        ),
        (["linear.yaml", "--checkpoint-every", "0"], "Invalid value for '--checkpoint-every'"),
        (["snapshot"], "Missing argument 'CONFIG'."),
        (["check", "--lr=3"], "No such option: --lr"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_fault_of_the_command_line_is_told_with_its_usage_or_as_json(
    tmp_path: Path, arguments: list[str], told: str
) -> None:
    done = steprun(*arguments, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: steprun ")
    assert told in done.err
    for asked in (["--format", "json"], ["--format=json"]):
        done = steprun(*arguments, *asked, cwd=tmp_path)
        assert (done.code, done.out) == (2, "")
        fault = json.loads(done.err)
        assert (fault["error"], fault["exit_code"]) == ("UsageError", 2)
        assert told in fault["problems"][0]["message"]
