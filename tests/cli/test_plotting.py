"""`steprun plot`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.commands import steprun
from tests.tables import over

DESCENT = """\
parameters: {w: {shape: [2], init: 1}}
expression: loss = (w ** 2).sum()
optimizer: {sgd: {lr: 0.1}}
steps: 20
"""
SIZE = {"COLUMNS": "60", "LINES": "20"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plots")
    (folder / "descent.yaml").write_text(DESCENT)
    assert steprun("descent.yaml", "-q", cwd=folder).code == 0
    return folder


def plotted(folder: Path, *arguments: str, **environment: str) -> list[str]:
    done = steprun("plot", "runs/descent", *arguments, cwd=folder, environment={**SIZE, **environment})
    assert (done.code, done.err) == (0, "")
    return done.out.splitlines()


@over("arguments", [["loss"], ["loss", "*.grad"], ["loss,w.grad"], [], ["loss", "--log"]])
def test_a_plot_is_as_wide_as_the_terminal_and_plain_in_a_pipe(folder: Path, arguments: list[str]) -> None:
    lines = plotted(folder, *arguments)
    assert max(map(len, lines)) == 60
    assert len(lines) == 17
    assert "\x1b" not in "".join(lines)


def test_a_narrow_terminal_has_a_narrow_plot(folder: Path) -> None:
    assert max(map(len, plotted(folder, "loss", COLUMNS="40"))) == 40


def test_the_ends_of_the_axes_are_the_numbers(folder: Path) -> None:
    text = "\n".join(plotted(folder, "loss"))
    assert "2.00┤" in text  # the loss of the first row is 1² + 1²
    assert "0.00┤" in text
    assert text.splitlines()[-2].split()[0] == "1"
    assert text.splitlines()[-2].split()[-1] == "20"


def test_several_curves_have_a_letter_each(folder: Path) -> None:
    text = "\n".join(plotted(folder, "loss", "w"))
    assert "aa loss" in text
    assert "bb |w|" in text


@over(
    ("arguments", "message"),
    [
        (["runs/descent", "los"], "`los` matches no column\n      = did you mean `loss`?\n"),
        (["descent"], "there is no folder descent\n      = did you mean `runs/descent/latest`?\n"),
        (["runs/other"], "there is no folder runs/other\n      = `steprun runs` lists the recorded runs\n"),
    ],
)
def test_what_is_not_there_is_an_error(folder: Path, arguments: list[str], message: str) -> None:
    done = steprun("plot", *arguments, cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"steprun\n      {message}"


def test_control_characters_of_a_folder_do_not_reach_the_terminal(folder: Path) -> None:
    (folder / "runs" / "\x1b[2J").symlink_to(folder / "runs" / "descent")
    done = steprun("plot", "runs/\x1b[2J/latest", "loss", cwd=folder, environment=SIZE)
    (folder / "runs" / "\x1b[2J").unlink()
    assert done.code == 0
    assert "runs/\N{REPLACEMENT CHARACTER}[2J/" in done.out
    assert "\x1b" not in done.out


def test_gaps_and_curves_without_a_point_are_reported(folder: Path) -> None:
    (folder / "blow.yaml").write_text(DESCENT.replace("0.1", "1e30") + "on_nonfinite: ignore\n")
    assert steprun("blow.yaml", "-q", cwd=folder).code == 0
    done = steprun("plot", "runs/blow", "w.grad", "loss", cwd=folder, environment=SIZE)
    assert (done.code, done.err) == (0, "")  # both have a finite value in the first row
    done = steprun("plot", "runs/blow", "--log", "w", "loss", cwd=folder, environment=SIZE)
    assert done.code == 0


def test_without_plotext_the_message_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotext", None)
    done = steprun("plot", "runs/descent", "loss", cwd=folder)
    assert done.code == 2
    assert done.err == (
        "steprun\n      `steprun plot` needs plotext, which is not installed\n"
        "      = install it: `pip install 'steprun[plot]'`\n"
    )
