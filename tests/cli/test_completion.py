"""What the shell completes."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.cli.input.completion import complete_config
from tests.cli.commands import LINEAR, steprun, steprun_process


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "configs").mkdir()
    for name in ("linear.yaml", "logistic.yml", "notes.txt", ".hidden.yaml"):
        (tmp_path / "configs" / name).write_text(LINEAR)
    (tmp_path / "top.yaml").write_text(LINEAR)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("incomplete", "expected"),
    [
        ("", ["configs/", "top.yaml"]),
        ("co", ["configs/"]),
        ("configs/", ["configs/linear.yaml", "configs/logistic.yml"]),
        ("configs/li", ["configs/linear.yaml"]),
        ("configs/.h", ["configs/.hidden.yaml"]),
        ("absent/", []),
    ],
)
@pytest.mark.usefixtures("folder")
def test_configs_and_folders_are_completed(incomplete: str, expected: list[str]) -> None:
    assert complete_config(incomplete) == expected


def completed(folder: Path, words: str, shell: str = "bash") -> list[str]:
    """What a shell is told for the last word of `words`."""
    environment = {
        "_STEPRUN_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "_TYPER_COMPLETE_ARGS": words,
    }
    return steprun_process(cwd=folder, environment=environment).out.split()


def test_a_shell_is_told_commands_and_configs(folder: Path) -> None:
    assert completed(folder, "steprun val") == ["validate"]
    assert completed(folder, "steprun to") == ["top.yaml"]
    assert completed(folder, "steprun show configs/li") == ["configs/linear.yaml"]


@pytest.mark.parametrize(
    "words", ["steprun top.yaml lear", "steprun run top.yaml lear", "steprun show top.yaml --set lear"]
)
def test_a_shell_is_told_what_an_override_may_set(folder: Path, words: str) -> None:
    assert completed(folder, words) == ["learning_rate="]


def test_every_override_that_is_offered_can_be_written(folder: Path) -> None:
    offered = completed(folder, "steprun top.yaml ")
    names = [name for name in offered if name.endswith("=")]
    assert {"seed=", "learning_rate=", "optimizer.sgd.lr=", "optimizer.sgd.momentum=", "parameters.x1.init="} <= set(
        names
    )
    told = {"optimizer.sgd.nesterov=": "false", "seed=": "3", "learning_rate=": "0.5", "parameters.x1.init=": "5"}
    for name, value in told.items():
        assert name in names
        assert steprun("validate", "top.yaml", name + value, cwd=folder).code == 0
    assert not [name for name in names if name.startswith(("optimizers.", "single_optimizer", "extends", "sweep"))]


def test_a_config_that_is_not_valid_completes_nothing(folder: Path) -> None:
    (folder / "top.yaml").write_text("parameters: [")
    assert completed(folder, "steprun run top.yaml lear") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_shown(folder: Path, shell: str) -> None:
    script = steprun_process(cwd=folder, environment={"_STEPRUN_COMPLETE": f"source_{shell}"}).out
    assert "_STEPRUN_COMPLETE=complete_" in script
