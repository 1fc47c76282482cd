"""The architecture page shows the packages as they are."""

from __future__ import annotations

import re
from pathlib import Path

from tools import architecture

ROOT = Path(__file__).parents[1]
REGENERATE = "regenerate it: python -m tools.architecture"


def test_the_picture_and_the_list_of_packages_are_those_of_the_code() -> None:
    assert architecture.PICTURE.read_text(encoding="utf-8") == architecture.picture(), REGENERATE
    assert architecture.PAGE.read_text(encoding="utf-8") == architecture.page(), REGENERATE


def test_every_path_that_the_pages_for_contributors_name_exists() -> None:
    for page in (ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"):
        for path in re.findall(r"`((?:[a-z_]+/)+[a-z_]+(?:\.[a-z]+)?)`", page.read_text(encoding="utf-8")):
            assert any((folder / path).exists() for folder in (ROOT, ROOT / "runner")), f"{page.name} names {path}"


def test_every_name_that_the_pages_place_in_a_module_is_defined_there() -> None:
    placed = [
        found
        for page in (ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md")
        for found in re.findall(r"`(\w+)` (?:of|in) `([a-z_/]+\.py)`", page.read_text(encoding="utf-8"))
    ]
    assert len(placed) > 15
    for name, path in placed:
        module = next(folder / path for folder in (ROOT, ROOT / "runner") if (folder / path).exists())
        defined = rf"^(?:class |def )?{name}\b"
        assert re.search(defined, module.read_text(encoding="utf-8"), re.MULTILINE), f"{path} defines no {name}"
