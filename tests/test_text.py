"""Nothing that a stranger wrote reaches a terminal as anything but text."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.text import json_text, printable, printable_line
from tests.manifests import manifest_fields
from tests.tables import over

CLIPBOARD = "\x1b]52;c;cHduZWQ=\x07"
HOSTILE = [
    CLIPBOARD,
    "\x1b[2J",
    "\x9b2J",
    "\x9d52;c;eA==\x9c",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "\r",
    "\x08",
    "\x7f",
    "\u2028",
]
KEPT = ["plain", "naïve café", "日本語\u3000です", "½ → ∞", "👩\u200d🔬", "می\u200cخواهم", "a\xa0b"]


def dangerous(text: str) -> list[str]:
    """The characters that do something else than stand there."""
    kept = "\u200c\u200d"
    return [
        char
        for char in text
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char != "\n" and char not in kept
    ]


@over("text", HOSTILE)
def test_what_is_no_text_is_replaced(text: str) -> None:
    assert dangerous(text)
    for clean in (printable, printable_line):
        assert dangerous(clean(f"a{text}b")) == []
        assert len(clean(f"a{text}b")) == len(f"a{text}b")


@over("text", KEPT)
def test_text_in_any_script_stays(text: str) -> None:
    assert printable(text) == printable_line(text) == text


def test_lines_stay_lines_where_they_may() -> None:
    assert printable("a\n\tb\r\n") == "a\n b\N{REPLACEMENT CHARACTER}\n"
    assert printable_line("a\nb") == "a\N{REPLACEMENT CHARACTER}b"


@given(
    st.recursive(st.text(st.characters(codec=None)), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_json_has_nothing_dangerous_and_says_the_same(value: Any) -> None:
    for indent in (None, 2):
        text = json_text(value, indent)
        assert dangerous(text) == []
        assert json.loads(text) == json.loads(json.dumps(value))


# --- every string of every file


CONFIG = """\
name: linear
description: "EVIL description"
parameters: {x: {shape: [3], init: ones}}
expression: loss = (x ** 2).sum()
optimizer: {sgd: {lr: 0.1}}
steps: [{repeat: {times: 3, steps: [train, checkpoint]}}]
"""
EVIL = "\x1b]52;c;cHduZWQ=\x07\x1b[2J\x9b2J\u202e\x9d52;c;eA==\x9c\n\u2066"


def steprun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    code = "import sys; from runner.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, check=False)


def strings_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every text in a value, and of every key."""
    if isinstance(value, str):
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from strings_of(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...]) -> Any:
    """The value with the text at a path made hostile."""
    if not path:
        return value + EVIL
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = replaced(changed[path[0]], path[1:])
    return changed


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "c.yaml").write_text(CONFIG)
    assert steprun(folder, "c.yaml", "--quiet").returncode == 0
    (run,) = (folder / "runs" / "linear").iterdir()
    manifest = manifest_fields(run / "run.json")
    problem = {"message": "why", "hint": "do", "source": "c.yaml", "line": 1, "column": 1, "path": ""}
    failure = {"error": "RunError", "problems": [problem]}
    (run / "run.json").write_text(json.dumps(manifest | {"status": "failed", "failure": failure, "warnings": ["one"]}))
    return run


def check_clean(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = capsys.readouterr()
    assert dangerous(out) == []
    assert dangerous(err) == []


def called(*arguments: str) -> None:
    from runner.cli.main import main

    main(list(arguments))


@pytest.mark.slow
def test_every_string_of_a_manifest_is_printed_as_text(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = Path(shutil.copytree(recorded, tmp_path / "runs" / "linear" / "other"))
    sound = manifest_fields(other / "run.json")
    for path in strings_of(sound):
        (other / "run.json").write_text(json.dumps(replaced(sound, path)))
        called("runs")
        called("runs", "--json")
        called("diff", str(recorded), str(other))
        called("diff", str(recorded), str(other), "--json")
        called("resume", str(other), "--quiet")
        check_clean(capsys)


@pytest.mark.slow
def test_every_string_of_a_checkpoint_is_printed_as_text(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    monkeypatch.chdir(tmp_path)
    (newest,) = sorted((recorded / "checkpoints").glob("*.json"))[-1:]
    sound = json.loads(newest.read_text())
    del sound["digest"]
    for number, path in enumerate(strings_of(sound)):
        other = Path(shutil.copytree(recorded, tmp_path / "runs" / "linear" / str(number)))
        told = replaced(sound, path)
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        (other / "checkpoints" / newest.name).write_text(json.dumps(told | {"digest": digest}))
        called("resume", str(other), "--quiet")
        called("resume", str(other), "--format", "json")
        check_clean(capsys)


@pytest.mark.slow
def test_texts_of_a_config_and_overrides_are_printed_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG.replace("EVIL", EVIL.encode("unicode_escape").decode()))
    for command in ("show", "validate", "run"):
        called(command, "c.yaml")
        called(command, "c.yaml", "--json")
        for override in (f"seed={EVIL}", f"{EVIL}=1", f"~{EVIL}", f'description="{EVIL}"', f"--{EVIL}"):
            called(command, "c.yaml", override)
            called(command, "c.yaml", override, "--format", "json")
        check_clean(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"evil{EVIL}".replace("\n", ""), "latin-\udcff"], ids=["controls", "not-utf-8"])
def test_names_of_files_are_printed_as_text(
    name: str, tmp_path: Path, recorded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(shutil.copytree(recorded, tmp_path / "runs" / name / "run"))
    Path(shutil.copytree(recorded, tmp_path / "runs" / "linear" / name))
    Path(name).write_text(CONFIG)
    Path(name + ".yaml").write_text("parameters: 3")
    for arguments in (
        ["runs"],
        ["runs", name],
        ["runs", "--json"],
        ["diff", f"runs/{name}/run", f"runs/linear/{name}"],
        ["resume", f"runs/linear/{name}"],
        ["resume", name],
        [name, "--no-record", "--quiet"],
        ["validate", name + ".yaml"],
        ["validate", name + ".yaml", "--format", "json"],
        ["show", name + "x"],
    ):
        called(*arguments)
        check_clean(capsys)


def test_a_listing_has_a_line_for_each_run(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path(shutil.copytree(recorded, tmp_path / "linear" / "one\ntwo"))
    assert os.path.exists(other)
    called("runs", "--runs-dir", str(tmp_path))
    assert len(capsys.readouterr().out.splitlines()) == 2
