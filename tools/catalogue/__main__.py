"""Rewrites `runner/catalogue/*.txt` from the installed torch. Review the diff before you commit it."""

from __future__ import annotations

from pathlib import Path

from tools.catalogue.tables import all_tables

FOLDER = Path(__file__).resolve().parents[2] / "runner" / "catalogue"


def main() -> None:
    for name, text in all_tables().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"{name}: {text.count(chr(10))} lines")


if __name__ == "__main__":
    main()
