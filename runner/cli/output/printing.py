"""Prints text that is safe for a terminal, and JSON."""

from __future__ import annotations

from typing import Any

import typer

from runner.text import json_text, printable


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print text, on standard error if `err` is set."""
    typer.echo(printable(text), err=err, nl=nl)


def say_json(value: Any, indent: int | None = 2) -> None:
    """Print a value as JSON on standard output."""
    typer.echo(json_text(value, indent))
