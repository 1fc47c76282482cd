"""Declares options and arguments whose help states the default itself, or that have none."""

from __future__ import annotations

from typing import Any

import typer


def option(*names: str, help: str, **settings: Any) -> Any:
    """As `typer.Option`, without a default in the help."""
    return typer.Option(*names, help=help, show_default=False, **settings)


def argument(metavar: str, help: str, **settings: Any) -> Any:
    """As `typer.Argument`, without a default in the help."""
    return typer.Argument(metavar=metavar, help=help, show_default=False, **settings)
