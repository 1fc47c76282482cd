"""What becomes of a fault: message, stream, exit code, and never a traceback unless asked for."""

from __future__ import annotations

import json

import pytest
import typer

from runner.cli.output.faults import FORMAT_KEY, exit_code_of
from runner.errors import ConfigError, ExpectationError, Mark, Problem, RunError, SteprunError, UsageError


@pytest.fixture(autouse=True)
def _without_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPRUN_DEBUG", raising=False)


@pytest.mark.parametrize(
    ("family", "code"), [(SteprunError, 1), (RunError, 1), (ConfigError, 2), (UsageError, 2), (ExpectationError, 3)]
)
def test_each_family_of_faults_has_its_exit_code(
    family: type[SteprunError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(family("it went wrong"), {}) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "steprun\n      it went wrong\n"


def test_all_problems_of_a_fault_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [Problem(f"fault {number}", mark=Mark("a.yaml", number, 1), path="steps") for number in (1, 2)]
    exit_code_of(ConfigError(problems), {})
    assert capsys.readouterr().err == "a.yaml:1:1  steps\n      fault 1\n\na.yaml:2:1  steps\n      fault 2\n"


def test_as_json_all_problems_are_in_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [Problem(f"fault {number}", mark=Mark("a.yaml", number, 1), path="steps") for number in (1, 2)]
    assert exit_code_of(ConfigError(problems), {FORMAT_KEY: "json"}) == 2
    told = json.loads(capsys.readouterr().err)
    assert (told["error"], told["exit_code"]) == ("ConfigError", 2)
    assert [(problem["line"], problem["message"]) for problem in told["problems"]] == [(1, "fault 1"), (2, "fault 2")]


def test_an_unexpected_exception_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(ValueError("seven"), {}) == 1
    assert capsys.readouterr().err == (
        "steprun\n      internal error: ValueError: seven\n"
        "      = this is a bug in steprun, not in the config; STEPRUN_DEBUG=1 shows the traceback\n"
    )


def test_with_debug_the_traceback_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPRUN_DEBUG", "1")
    with pytest.raises(ConfigError, match="it went wrong") as caught:
        raise ConfigError("it went wrong")
    assert exit_code_of(caught.value, {}) == 2
    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last):")
    assert told.endswith("steprun\n      it went wrong\n")


def test_a_file_that_the_system_refuses_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(PermissionError(13, "Permission denied", "runs"), {}) == 1
    assert capsys.readouterr().err == "steprun\n      runs: permission denied\n"


def test_memory_that_runs_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(MemoryError(), {}) == 1
    assert capsys.readouterr().err.startswith("steprun\n      out of memory\n")


def test_an_interrupt_exits_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(KeyboardInterrupt("interrupted after row 7"), {}) == 130
    assert capsys.readouterr().err == "steprun\n      interrupted after row 7\n"


@pytest.mark.parametrize("error", [typer.Exit(4), typer.Abort(), typer.BadParameter("no")])
def test_typers_own_exceptions_stay_its_own(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(error, {}) is None
    assert capsys.readouterr() == ("", "")
