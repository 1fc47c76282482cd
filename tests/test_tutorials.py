"""The tutorials of the documentation: their files and commands, one after another in a new folder.

A block that begins with ```` ```yaml file=NAME ```` is written to a file. One that begins with
```` ```console step ```` is a command and what it prints. Behind ```` ```python step ```` follows what it prints,
as ```` ```text step ````.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import split

import pytest

from tests.cli.commands import steprun

ROOT = Path(__file__).parents[1]
TUTORIALS = {"console.md": [], "tutorial-tabular.md": ["configs/data/apples.csv"]}
"""The pages, and the files that a reader copies first."""

_BLOCK = re.compile(r"^```(\w+) (step|file=(\S+))\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_STAMP = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
_NUMBER = re.compile(r"(\d+\.\d+)")


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    file: str | None
    text: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        yield Block(match[1], match[3], match[4], text[: match.start()].count("\n") + 1)


def printed(command: str, folder: Path) -> str:
    name, *words = split(command)
    if name == "cat":
        return "".join((folder / word).read_text(encoding="utf-8") for word in words)
    assert name == "steprun"
    done = steprun(*words, cwd=folder, environment={"COLUMNS": "100", "LINES": "24"})
    return done.out + done.err


def python(text: str, folder: Path) -> str:
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(text, "tutorial", "exec"), {})
    return out.getvalue()


def matches(shown: str, found: str) -> bool:
    """Whether a text is what a page shows.

    `…` stands for any text, and on a line of its own for any lines. Stamps of directories are alike, and so are
    numbers with a point within one per cent: their last digits depend on the processor.
    """
    shown, found = _STAMP.sub("STAMP", shown), _STAMP.sub("STAMP", found)
    parts = [re.escape(part) for part in shown.split("…")]
    pattern = re.sub(r"\d+\\\.\d+", r"(\\d+\\.\\d+)", "(?:.|\n)*?".join(parts))
    match = re.fullmatch(pattern, found)
    numbers = [number for part in shown.split("…") for number in _NUMBER.findall(part)]
    return match is not None and all(
        float(one) == pytest.approx(float(other), rel=0.01, abs=0.001)
        for one, other in zip(numbers, match.groups(), strict=True)
    )


def test_what_matches_a_page() -> None:
    assert matches("loss 0.3807\nin runs/…\n", "loss 0.3806\nin runs/20261129-210034-3c13\n")
    assert matches("a\n…\nb 1.5\n", "a\nx 7.25\ny\nb 1.501\n")
    assert not matches("loss 0.3807\n", "loss 0.39\n")
    assert not matches("loss 0.3807\n", "loss 0.3807\nmore\n")
    assert not matches("3 samples\n", "4 samples\n")


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS)
def test_a_tutorial_does_what_it_says(page: str, tmp_path: Path) -> None:
    for name in TUTORIALS[page]:
        shutil.copy(ROOT / name, tmp_path)
    out = ""
    for block in blocks(page):
        if block.file is not None:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            out = python(block.text, tmp_path)
        else:
            shown = block.text
            if block.language == "console":
                command, _, shown = block.text.partition("\n")
                out = printed(command.removeprefix("$ "), tmp_path)
            assert matches(shown, out), f"docs/{page}:{block.line} prints\n{out}"


def test_every_tutorial_runs() -> None:
    pages = [path.name for path in (ROOT / "docs").glob("*.md") if _BLOCK.search(path.read_text(encoding="utf-8"))]
    assert sorted(pages) == sorted(TUTORIALS)
