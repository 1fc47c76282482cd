"""Annotations of GitHub Actions: their text is one line that GitHub reads back, and they stand at the right line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner.cli.output.annotations import LONGEST, annotation
from tests.cli.commands import steprun
from tests.tables import over

DOCS = Path(__file__).parents[2] / "docs"


def read_back(command: str) -> tuple[dict[str, str], str]:
    """The properties and the message of a workflow command, as the runner of GitHub Actions reads them.

    Source: `ActionCommand.TryParseV2` of actions/runner, with its table of escapes.
    """
    found = re.fullmatch(r"::error(?: ([^\n]*?))?::([^\n\r]*)", command)
    assert found is not None
    properties = dict(each.split("=", 1) for each in (found[1] or "").split(",") if each)
    for name, value in properties.items():
        for escaped, plain in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
            value = value.replace(escaped, plain)
        properties[name] = value
    message = found[2]
    for escaped, plain in (("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        message = message.replace(escaped, plain)
    return properties, message


TEXTS = ["plain", "two\nlines", "100% of %0A", "a: b, c", "::error::x", "::stop-commands::x", "", "%25", "é ∂"]


@over("text", TEXTS)
def test_any_text_is_read_back(text: str) -> None:
    properties, message = read_back(annotation(text, text, 3, 5))
    assert message == text
    assert properties == {"file": text, "line": "3", "col": "5"}


@pytest.mark.parametrize(
    ("message", "file", "line", "expected"),
    [
        ("a % b\nc: d, e", "x,y:z%.yaml", 3, "::error file=x%2Cy%3Az%25.yaml,line=3,col=5::a %25 b%0Ac: d, e"),
        ("no place", None, None, "::error col=5::no place"),
    ],
)
def test_an_annotation_is_escaped_as_github_asks(
    message: str, file: str | None, line: int | None, expected: str
) -> None:
    assert annotation(message, file, line, 5) == expected


def test_a_fault_of_an_override_names_it_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "parameters: {w: 1.0}\nexpression: loss = w ** 2\noptimizer: {sgd: {lr: 0.1}}\nsteps: 1\n"
    )
    done = steprun("a.yaml", "--format", "github", "stepz=1", cwd=tmp_path)
    assert done.code == 2
    assert done.err == (
        "::error::override stepz=1: there is no top-level key or scalar constant `stepz`%0A= did you mean `steps`?\n"
    )


def test_a_long_or_unprintable_message_is_cut_and_cleaned() -> None:
    made = annotation("\x1b[2J" + "x" * (2 * LONGEST))
    assert "\x1b" not in made
    assert len(made) < LONGEST + 20


def test_a_wrong_config_is_annotated_at_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = "parameters: {w: 1.0}\nexpression: loss = w * missing\nsteps: [forward]\n"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.yaml").write_text(config)
    done = steprun("validate", "a.yaml", "--format", "github", cwd=tmp_path / "configs")
    assert done.code == 2
    properties, message = read_back(done.err.strip())
    assert properties == {"file": "a.yaml", "line": "2", "col": "24"}
    assert message.startswith("expression: ")
    assert "missing" in message
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    done = steprun("validate", "a.yaml", "--format", "github", cwd=tmp_path / "configs")
    assert read_back(done.err.strip())[0]["file"] == "configs/a.yaml"
    done = steprun("validate", "--format=github", "--nonsense", cwd=tmp_path)
    assert done.err.startswith("::error::")


def test_check_annotates_what_does_not_match(tmp_path: Path) -> None:
    config = (
        "parameters: {w: {shape: [4], init: ones}}\nconstants: {c: 2.0}\nexpression: loss = (w * c).sum()\n"
        "optimizer: {sgd: {lr: 0.1}}\nsteps: [train, train]\n"
    )
    for name in ("same", "edited", "odd"):
        (tmp_path / f"{name}.yaml").write_text(config)
    steprun("snapshot", "same.yaml", "edited.yaml", "odd.yaml", "--uncertainty=0", cwd=tmp_path)
    (tmp_path / "new.yaml").write_text(config)
    (tmp_path / "edited.yaml").write_text(config.replace("lr: 0.1", "lr: 0.2"))
    snapshot = tmp_path / "snapshots" / "odd.yaml"
    snapshot.write_text(snapshot.read_text().replace("loss: 8.0", "loss: 8.5"))
    done = steprun("check", ".", "new.yaml", "--format", "github", "--json", cwd=tmp_path)
    assert done.code == 3
    found = {properties["file"]: (properties, said) for properties, said in map(read_back, done.err.splitlines())}
    assert set(found) == {"edited.yaml", "odd.yaml", "new.yaml"}
    assert found["edited.yaml"][0]["line"] == "4"
    assert "`optimizer.sgd.lr` was edited (line 4), which can explain this" in found["edited.yaml"][1]
    assert found["odd.yaml"][0] == {"file": "odd.yaml", "line": "3", "col": "13"}
    assert "`loss` differs" in found["odd.yaml"][1]
    assert "new.yaml has no snapshot" in found["new.yaml"][1]
    assert steprun("check", "same.yaml", "--format", "github", cwd=tmp_path).err == ""


def test_another_format_is_refused() -> None:
    done = steprun("check", "--format", "xml")
    assert done.code == 2
    assert "it is `text`, `json` or `github`" in done.err


def test_the_recipe_of_the_documentation_has_options_that_exist(tmp_path: Path) -> None:
    text = (DOCS / "snapshots.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"- run: steprun (check .*)", text)
    words = command.replace("configs", str(tmp_path)).split()
    done = steprun(*words, cwd=tmp_path)
    assert done.code == 2
    assert read_back(done.err.strip())[1].startswith(f"there is no snapshot below {tmp_path}")
